from __future__ import annotations

import pytest
import torch

from finedge.spec import Input, Preprocess, Spec
from finedge.train.models import build_model

SIZE = 64


@pytest.fixture
def make_model():
    """Build a small model whose BatchNorms have moved off their start, so that folding them is not a no-op."""

    def make(name="cnl", backbone="mobilenetv2_035", **options):
        torch.manual_seed(0)
        model = build_model(name, num_classes=5, backbone=backbone, **options)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
                torch.nn.init.uniform_(module.bias, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        spec = Spec(
            name, backbone, tuple("abcde"), Preprocess(SIZE, SIZE), Input(SIZE, SIZE), model.outputs
        )
        return model.eval(), spec

    return make
