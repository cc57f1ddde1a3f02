"""Bundles of `export --frame HxW`: the graph takes whole frames, and the PyTorch reference sees the crops that the graph makes of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finedge.errors import GateError, UsageError
from finedge.export.passes.frame import PREFIX
from finedge.export.to_onnx import FramesToOutputs
from finedge.preprocess import preprocess
from finedge.spec import Input, Preprocess, Spec

GREY_LEVELS = 1  # Pillow and OpenCV resize in fixed point, the graph in float32


def frame_size(text: str) -> tuple[int, int]:
    """Read HxW, e.g. 720x1280, as (height, width) in pixels."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UsageError(f"frame '{text}'", expected="HEIGHTxWIDTH in pixels, e.g. 720x1280")
    return int(found[1]), int(found[2])


def framed_spec(spec: Spec, size: tuple[int, int]) -> Spec:
    """Return the spec of a graph that takes frames of `size` (height, width)."""
    return replace(spec, preprocess=replace(spec.preprocess, frame=size), input=Input(*size))


class FramedReference(nn.Module):
    """A model in PyTorch behind the head of a framed graph: uint8 [B, height, width, 3] -> its outputs, then its taps."""

    def __init__(self, reference: FramesToOutputs, framed: onnx.ModelProto) -> None:
        super().__init__()
        self.reference = reference
        self._head = onnxruntime.InferenceSession(
            _head(framed).SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def crops(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the graph crops of frames: uint8 [B, crop, crop, 3]."""
        (planes,) = self._head.run(None, {self._head.get_inputs()[0].name: frames})
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).astype(np.uint8)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return what the reference makes of the crops."""
        results: tuple[Tensor, ...] = self.reference(torch.from_numpy(self.crops(frames.numpy())))
        return results


def check_crops(reference: FramedReference, frames: NDArray[np.uint8], *, how: Preprocess) -> int:
    """Compare the graph's crops of frames with those of `preprocess` (`how` without a frame); return the largest difference, in grey levels.

    Raises:
        GateError: it is more than 1.
    """
    expected = np.stack([preprocess(frame, how) for frame in frames]).astype(np.int16)
    worst = int(np.abs(reference.crops(frames) - expected).max())
    if worst > GREY_LEVELS:
        raise GateError(
            f"the graph's crop differs from preprocess() by {worst} grey levels",
            expected=f"at most {GREY_LEVELS}",
        )
    return worst


def _head(framed: onnx.ModelProto) -> onnx.ModelProto:
    """Return the part of a framed graph that makes float32 planes [B, 3, crop, crop] of frames."""
    head = onnx.ModelProto()
    head.CopyFrom(framed)
    nodes = [n for n in framed.graph.node if n.name.startswith(PREFIX)]
    planes = onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    for kept, wanted in ((head.graph.node, nodes), (head.graph.output, [planes])):
        del kept[:]
        kept.extend(wanted)
    constants = [t for t in framed.graph.initializer if t.name.startswith(PREFIX)]
    del head.graph.initializer[:], head.graph.value_info[:], head.functions[:]
    head.graph.initializer.extend(constants)
    return head
