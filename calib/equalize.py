"""Cross-layer equalisation: channel scales moved from one layer into the next.

A convolution, then a ReLU or nothing, then convolutions: channel i of the tensor between them is
divided by s[i] in the first layer and multiplied in the next ones (Nagel et al. 2019, arXiv
1906.04721). The function stays the same, and one range then suits all channels of the tensor.
ReLU6 is refused: its bound of 6 would be another one in each channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from finedge.graph.edit import copied
from finedge.graph.walk import consumers

ROUNDS = 20  # a layer between two others takes part in two pairs
LARGEST = 1e3  # of a scale: a channel of zeros has none


@dataclass(frozen=True)
class Pair:
    """A convolution, and those that alone read its output, at most through a ReLU."""

    first: onnx.NodeProto
    readers: tuple[onnx.NodeProto, ...]


def equalize(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return an inlined model with equal channel ranges, and the number of pairs it has."""
    changed = copied(model)
    stored = {t.name: numpy_helper.to_array(t).copy() for t in changed.graph.initializer}
    pairs = list(_pairs(changed.graph, stored))
    for _ in range(ROUNDS if pairs else 0):
        for pair in pairs:
            _equalize(pair, stored)
    for tensor in changed.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name], tensor.name))
    return changed, len(pairs)


def _pairs(graph: onnx.GraphProto, stored: dict[str, NDArray[np.float32]]) -> Iterator[Pair]:
    readers, outputs = consumers(graph), {o.name for o in graph.output}
    uses = {name: len(nodes) for name, nodes in readers.items()}
    for node in graph.node:
        if not _own_weights(node, stored, uses):
            continue
        tensor = node.output[0]
        if [n.op_type for n in readers.get(tensor, [])] == ["Relu"] and tensor not in outputs:
            tensor = readers[tensor][0].output[0]
        nodes = readers.get(tensor, [])
        whole = tensor not in outputs and all(n.input[0] == tensor for n in nodes)
        if nodes and whole and all(_own_weights(n, stored, uses) for n in nodes):
            yield Pair(node, tuple(nodes))


def _own_weights(
    node: onnx.NodeProto, stored: dict[str, NDArray[np.float32]], uses: dict[str, int]
) -> bool:
    weights = [name for name in node.input[1:] if name]
    own = all(name in stored and uses[name] == 1 for name in weights)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type != "Conv" or not own:
        return False
    return groups in (1, len(stored[node.input[1]]))


def _equalize(pair: Pair, stored: dict[str, NDArray[np.float32]]) -> None:
    first = stored[pair.first.input[1]]
    before = np.abs(first).reshape(len(first), -1).max(axis=1)
    after = np.max([_input_ranges(stored[n.input[1]]) for n in pair.readers], axis=0)
    live = (before > 0) & (after > 0)
    scale = np.ones(len(first))
    scale[live] = np.clip(np.sqrt(before[live] / after[live]), 1 / LARGEST, LARGEST)
    stored[pair.first.input[1]] = _scaled(first, 1 / scale, axis=0)
    if len(pair.first.input) > 2 and pair.first.input[2]:
        name = pair.first.input[2]
        stored[name] = _scaled(stored[name], 1 / scale, axis=0)
    for node in pair.readers:
        weight = stored[node.input[1]]
        axis = 0 if weight.shape[1] == 1 and len(weight) == len(scale) else 1
        stored[node.input[1]] = _scaled(weight, scale, axis=axis)


def _input_ranges(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest weight of each input channel; a depthwise layer has one channel each."""
    if weight.shape[1] == 1 and len(weight) > 1:
        return np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return np.abs(weight).max(axis=(0, *range(2, weight.ndim)))


def _scaled(
    array: NDArray[np.float32], scale: NDArray[np.float64], *, axis: int
) -> NDArray[np.float32]:
    shape = [1] * array.ndim
    shape[axis] = -1
    result: NDArray[np.float32] = (array * scale.reshape(shape)).astype(np.float32)
    return result
