"""Where the positions of a feature map lie on the network's input.

A heat map must not simply be stretched over the crop: what a position sees is centred where kernels, strides and paddings put it. With
TensorFlow's padding (EfficientNet-Lite) the centres of a 7 x 7 map lie half a cell right of and below the middles of 7 x 7 equal cells,
with PyTorch's (ResNet) half a cell left and above: 16 of 224 pixels, as much as the head of a bird.
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
# These mix positions or drop them: behind them nothing has a place on the picture.
PLACELESS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "Gemm", "Flatten"})
REDUCES = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2"})
AXES = (0, 1)  # down, across


@dataclass(frozen=True)
class Line:
    """Position j along one axis is centred at `first + step * j` pixels of the input; the first pixel's own centre is 0.5."""

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
    """A feature map's lines down and across."""

    y: Line
    x: Line


class Places:
    """Where every tensor of a graph lies, found by one walk from the input that composes every step it meets."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._lines = [self._walk(axis) for axis in AXES]

    def grid(self, tensor: str, *, shape: Sequence[int], frame: Sequence[int]) -> Grid:
        """Return where a map of `shape` (h, w) lies on an input of `frame` (H, W) pixels.

        Where the graph does not tell (two paths disagree, or an op resamples), the map's positions are the middles of equal cells.
        """
        return Grid(*(self._line(tensor, axis, shape[axis], frame[axis]) for axis in AXES))

    def _line(self, tensor: str, axis: int, size: int, pixels: int) -> Line:
        found = [
            f for f in self._lines[axis].get(tensor, ()) if abs(f.step * size - pixels) < f.step
        ]
        cell = pixels / size
        return found[0] if len(found) == 1 else Line(cell, cell / 2)

    def _walk(self, axis: int) -> dict[str, frozenset[Line]]:
        """Map each tensor to the lines of all paths to it: several where they disagree, none where no path keeps positions."""
        lines = dict.fromkeys(self._graph.inputs, frozenset({Line(1.0, 0.5)}))
        for node in self._graph.nodes:
            lines.update(dict.fromkeys(node.output, self._through(node, axis, lines)))
        return lines

    def _through(
        self, node: onnx.NodeProto, axis: int, lines: Mapping[str, frozenset[Line]]
    ) -> frozenset[Line]:
        settings, given = (
            attributes(node),
            [lines.get(name, frozenset[Line]()) for name in node.input],
        )
        if node.op_type in PLACELESS or (
            node.op_type in REDUCES and self._reduces_positions(node, settings)
        ):
            return frozenset()
        if node.op_type in SLIDES:
            return frozenset(_slide(line, settings, axis) for line in given[0])
        if node.op_type == "Pad":
            pads = self._graph.constant(node.input[1])
            before = 0.0 if pads is None else float(pads[len(pads) // 2 - 2 + axis])
            return frozenset(Line(line.step, line.first - before * line.step) for line in given[0])
        if node.domain == DOMAIN:  # an attention's output lies where its queries do
            return given[0]
        return frozenset().union(*given)

    def _reduces_positions(self, node: onnx.NodeProto, settings: Mapping[str, Any]) -> bool:
        axes = self._graph.constant(node.input[1]) if len(node.input) > 1 else settings.get("axes")
        return axes is None or any(int(a) in (2, 3, -1, -2) for a in axes)


def _slide(line: Line, settings: Mapping[str, Any], axis: int) -> Line:
    """Compose with a sliding window: output j is centred at input j stride - pad + dilation (kernel - 1) / 2."""
    kernel, stride = (
        settings.get("kernel_shape", [1, 1])[axis],
        settings.get("strides", [1, 1])[axis],
    )
    dilation, before = (
        settings.get("dilations", [1, 1])[axis],
        settings.get("pads", [0, 0, 0, 0])[axis],
    )
    return Line(line.step * stride, line.first + line.step * (dilation * (kernel - 1) / 2 - before))
