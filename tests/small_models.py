"""Small PyTorch models with weights as if trained, for the tests of export and explain."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

from finedge.bundle import Tap
from finedge.spec import Input, Preprocess, Spec
from tests.made_once import made_once

SIZE = 64


def small_model(name="cnl", backbone="mobilenetv2_035", **options):
    """Build a model of 5 classes for 64 x 64 pixels; return it and its spec.

    Its BatchNorms have moved away from their start values, so that folding them changes numbers.
    """
    import torch

    from finedge.train.models import build_model

    torch.manual_seed(0)
    model = build_model(name, num_classes=5, backbone=backbone, **options)
    for parameter in model.parameters():
        if parameter.ndim == 0:  # the gammas start at 0, and what they weigh would not be seen
            torch.nn.init.constant_(parameter, 0.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    preprocess = Preprocess(SIZE, SIZE)
    spec = Spec(name, backbone, tuple("abcde"), preprocess, Input(SIZE, SIZE), model.outputs)
    return model.eval(), spec


@functools.cache
def small_export(**choice) -> tuple[bytes, tuple[Tap, ...]]:
    """Export a small model, once for all tests; return the file's content, and its taps."""
    key = hashlib.sha256(json.dumps(choice, sort_keys=True).encode()).hexdigest()[:16]
    made = made_once(f"exports/{key}", functools.partial(_export, choice=choice))
    return pickle.loads(made.read_bytes())


def _export(path: Path, *, choice: Mapping[str, object]) -> None:
    import onnx_ir as ir

    from finedge.export.to_onnx import to_onnx

    graph, taps = to_onnx(*small_model(**choice))
    path.write_bytes(pickle.dumps((ir.to_proto(graph).SerializeToString(), taps)))
