"""Small PyTorch models with weights as if trained, for the tests of export and explain."""

from __future__ import annotations

from finedge.spec import Input, Preprocess, Spec

SIZE = 64


def small_model(name="cnl", backbone="mobilenetv2_035", **options):
    """Build a model of 5 classes for 64 x 64 pixels; return it and its spec.

    Its BatchNorms have moved away from their start values, so that folding them changes numbers.
    """
    import torch

    from finedge.train.models import build_model

    torch.manual_seed(0)
    model = build_model(name, num_classes=5, backbone=backbone, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    preprocess = Preprocess(SIZE, SIZE)
    spec = Spec(name, backbone, tuple("abcde"), preprocess, Input(SIZE, SIZE), model.outputs)
    return model.eval(), spec
