"""A trained model as ONNX: frames in (uint8 NHWC), logits out.

The cross-layer ops are nodes, and the taps have names.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from functools import partial

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from finedge.bundle import Tap
from finedge.export.ops import add_bodies, translation_table
from finedge.export.passes import apply_passes
from finedge.spec import Preprocess, Spec
from finedge.train.models.base import FineGrained

OPSET = 20


class FramesToOutputs(nn.Module):
    """The exported module: frames to the model's outputs in the spec's order, then its taps.

    Frames are uint8 [B, H, W, 3] RGB. Normalisation is part of the graph, so that no runtime can
    get it wrong. It is written as a BatchNormalization: ONNX Runtime moves a Transpose after a Sub
    and a Mul. Their broadcast over the last axis then costs 0.8 ms a frame of 224 px (1.4 ms on one
    thread) instead of 0.05 ms.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, model: FineGrained, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(preprocess.mean) * 255)
        self.register_buffer("variance", (torch.tensor(preprocess.std) * 255) ** 2)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Take uint8 [B, H, W, 3]; return float32 outputs [B, classes] and taps [B, C, h, w]."""
        floats = frames.to(self.mean.dtype)  # first: TensorRT cannot transpose uint8
        pixels = floats.permute(0, 3, 1, 2)
        # Not F.batch_norm: that of torch 2.11 refuses an epsilon of 0.
        images = torch.batch_norm(
            pixels,
            weight=None,
            bias=None,
            running_mean=self.mean,
            running_var=self.variance,
            training=False,
            momentum=0.0,
            eps=0.0,
            cudnn_enabled=False,
        )
        with recorded_taps(self.model) as taps:
            outputs = self.model(images)
        return (*(outputs[o.name] for o in self.model.outputs), *(taps[t] for t in self.model.taps))


@contextlib.contextmanager
def recorded_taps(model: FineGrained) -> Iterator[dict[str, Tensor]]:
    """Collect the output of every tap of `model` while the context is open."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(t).register_forward_hook(
            lambda _m, _i, out, name=t: outputs.__setitem__(name, out)
        )
        for t in model.taps
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def to_onnx(model: FineGrained, spec: Spec) -> tuple[ir.Model, tuple[Tap, ...]]:
    """Export `model` (eval mode, CPU) at opset 20 with a dynamic batch.

    Returns:
        the model, its operators as nodes with functions, and its taps with the tensors' names.
    """
    wrapped = FramesToOutputs(model, spec.preprocess).eval()
    frames = torch.zeros(2, spec.input.height, spec.input.width, 3, dtype=torch.uint8)
    names = [o.name for o in model.outputs]
    with _quiet(), _clamp_for_relu6(wrapped), torch.no_grad():
        program = torch.onnx.export(
            wrapped,
            (frames,),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=translation_table(),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[spec.input.name],
            output_names=[*names, *(f"tap/{t}" for t in model.taps)],
            verbose=False,
        )
    assert program is not None  # only without dynamo=True
    graph_model = program.model
    taps = _hide_taps(graph_model, len(names), model.taps)
    add_bodies(graph_model)
    apply_passes(graph_model, keep={t.tensor for t in taps})
    # The exporter records stack traces, with the paths of this machine.
    ClearMetadataAndDocStringPass()(graph_model)
    return graph_model, taps


def _hide_taps(model: ir.Model, outputs: int, names: tuple[str, ...]) -> tuple[Tap, ...]:
    """Turn the tap outputs into inner tensors that keep their names."""
    values = model.graph.outputs[outputs:]
    del model.graph.outputs[outputs:]
    return tuple(Tap(name, value.name or "") for name, value in zip(names, values, strict=True))


@contextlib.contextmanager
def _clamp_for_relu6(module: nn.Module) -> Iterator[None]:
    """Trace each ReLU6 as a clamp: the same Clip in the graph, and a third less time.

    PyTorch traces hardtanh, which ReLU6 is, through several functions in Python.
    """
    activations = [m for m in module.modules() if type(m) is nn.ReLU6]
    for activation in activations:
        activation.forward = partial(torch.clamp, min=0.0, max=6.0)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for activation in activations:
            del activation.forward


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter prints its progress on stdout, which belongs to our results. It also warns about
    # its own internals.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "torch.export")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
