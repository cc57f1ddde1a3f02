"""Where the positions of a feature map lie on the network's input.

A heat map must not simply be stretched over the crop: what a position sees is centred where
kernels, strides and paddings put it. Compare the centres of a 7 x 7 map with the middles of 7 x 7
equal cells. With TensorFlow's padding (EfficientNet-Lite) they lie half a cell to the right and
below. With PyTorch's (ResNet) they lie half a cell to the left and above. That is 16 of 224 pixels,
as much as a bird's head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from finedge.ops import DOMAIN
from finedge.runtime.explain.graph import Graph, attributes

SLIDES = frozenset({"Conv", "MaxPool", "AveragePool"})
# These mix positions or drop them: after them nothing has a place on the picture.
PLACELESS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "Gemm", "Flatten"})
REDUCES = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2"})
AXES = (0, 1)  # down, across


@dataclass(frozen=True)
class AxisPositions:
    """The centres of a feature map's positions along one axis of the input, in pixels.

    Position j is centred at `first + step * j`; the first pixel's own centre is 0.5.
    """

    step: float
    first: float

    def at(self, position: float) -> float:
        """Return the pixel where a position is centred."""
        return self.first + self.step * position

    def nearest(self, pixel: float, *, size: int) -> int:
        """Return the position, of `size`, centred nearest to a pixel."""
        return int(np.clip(round((pixel - self.first) / self.step), 0, size - 1))


@dataclass(frozen=True)
class Grid:
    """Where a feature map's positions lie, down and across."""

    y: AxisPositions
    x: AxisPositions


Candidates = frozenset[AxisPositions]


class Places:
    """Where every tensor of a graph lies.

    One walk from the input composes the steps of all nodes.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._positions = [self._walk(axis) for axis in AXES]

    def grid(self, tensor: str, *, shape: Sequence[int], frame: Sequence[int]) -> Grid:
        """Return where a map of `shape` (h, w) lies on an input of `frame` (H, W) pixels.

        Where the graph does not say it (two paths disagree, or an op resamples), the map's
        positions are the middles of equal cells.
        """
        return Grid(*(self._axis(tensor, axis, shape[axis], frame[axis]) for axis in AXES))

    def _axis(self, tensor: str, axis: int, size: int, pixels: int) -> AxisPositions:
        candidates = [
            positions
            for positions in self._positions[axis].get(tensor, ())
            if abs(positions.step * size - pixels) < positions.step
        ]
        if len(candidates) == 1:
            return candidates[0]
        cell = pixels / size
        return AxisPositions(cell, cell / 2)

    def _walk(self, axis: int) -> dict[str, Candidates]:
        """Map each tensor to the positions of all paths to it.

        There are several where paths disagree, and none where no path keeps positions.
        """
        pixels = frozenset({AxisPositions(1.0, 0.5)})
        candidates = dict.fromkeys(self._graph.inputs, pixels)
        for node in self._graph.nodes:
            candidates.update(dict.fromkeys(node.output, self._through(node, axis, candidates)))
        return candidates

    def _through(
        self, node: onnx.NodeProto, axis: int, candidates: Mapping[str, Candidates]
    ) -> Candidates:
        """Return where a node's outputs lie."""
        settings = attributes(node)
        inputs = [candidates.get(name, Candidates()) for name in node.input]
        if node.op_type in PLACELESS:
            return Candidates()
        if node.op_type in REDUCES and self._reduces_positions(node, settings):
            return Candidates()
        if node.op_type in SLIDES:
            return frozenset(_slide(positions, settings, axis) for positions in inputs[0])
        if node.op_type == "Pad":
            before = self._padding(node, axis)
            return frozenset(AxisPositions(p.step, p.first - before * p.step) for p in inputs[0])
        if node.domain == DOMAIN:  # an attention's output lies where its queries do
            return inputs[0]
        return Candidates().union(*inputs)

    def _padding(self, node: onnx.NodeProto, axis: int) -> float:
        """Return how many positions a Pad node adds before the first."""
        pads = self._graph.constant(node.input[1])
        return 0.0 if pads is None else float(pads[len(pads) // 2 - 2 + axis])

    def _reduces_positions(self, node: onnx.NodeProto, settings: Mapping[str, Any]) -> bool:
        axes = self._graph.constant(node.input[1]) if len(node.input) > 1 else settings.get("axes")
        return axes is None or any(int(a) in (2, 3, -1, -2) for a in axes)


def _slide(positions: AxisPositions, settings: Mapping[str, Any], axis: int) -> AxisPositions:
    """Compose with a sliding window.

    Output j is centred at input j stride - pad + dilation (kernel - 1) / 2.
    """
    kernel = settings.get("kernel_shape", [1, 1])[axis]
    stride = settings.get("strides", [1, 1])[axis]
    dilation = settings.get("dilations", [1, 1])[axis]
    before = settings.get("pads", [0, 0, 0, 0])[axis]
    shift = dilation * (kernel - 1) / 2 - before
    return AxisPositions(positions.step * stride, positions.first + positions.step * shift)
