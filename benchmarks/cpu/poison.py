"""Poison: changes one layer so that INT8 ruins it, and the float model computes the same.

`weight`: the channel before a layer is divided by 300, and the layer's weights of that channel are
multiplied by 300. Each output channel has one scale, so the other weights get a step 300 times as
wide.

`activation`: one channel of the tensor before a layer is shifted by 100 times its range, and the
layer's bias takes the shift back. The tensor has one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from finedge.calib.ranges.calibration_table import CalibrationTable
from finedge.graph.edit import copied
from finedge.graph.inlining import inline
from finedge.graph.patterns import is_layer
from finedge.graph.walk import consumers, producers

Kind = Literal["weight", "activation"]
FACTOR = 300.0
SHIFT = 100.0
# A channel passes them unchanged up to a factor, as long as ReLU6 does not cut it off at 6.
PASSES = ("Relu", "Clip", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten")


@dataclass(frozen=True)
class Injection:
    """A place for poison: the layer, the one before it, and a channel between them."""

    kind: Kind
    layer: str
    before: str
    channel: int


def places(model: onnx.ModelProto, kind: Kind) -> list[tuple[str, str]]:
    """Return (layer, layer before it) of each pair that can be poisoned."""
    graph = inline(model).graph
    pairs = []
    for node in (n for n in graph.node if is_layer(n)):
        before = _before(graph, node, passes=PASSES if kind == "weight" else ("Add",))
        one_pixel = _weight(graph, node).shape[2:] in ((), (1, 1)) and _groups(node) == 1
        if before is not None and one_pixel and len(before.input) > 2 and len(node.input) > 2:
            pairs.append((node.name, before.name))
    return pairs


def poisoned(
    model: onnx.ModelProto, injection: Injection, *, table: CalibrationTable
) -> onnx.ModelProto:
    """Return a copy of `model` with the poison; `table` has the ranges of its tensors."""
    copy = copied(inline(model))
    nodes = {node.name: node for node in copy.graph.node}
    layer, before, channel = nodes[injection.layer], nodes[injection.before], injection.channel
    weight, bias = _weight(copy.graph, layer), _array(copy.graph, before.input[2])
    column = _column(layer, channel)
    if injection.kind == "weight":
        source = _weight(copy.graph, before)
        source[channel] /= FACTOR
        bias[channel] /= FACTOR
        weight[column] *= FACTOR
        _store(copy.graph, {before.input[1]: source, layer.input[1]: weight})
    else:
        shift = SHIFT * table[layer.input[0]].amax
        bias[channel] += shift
        after = _array(copy.graph, layer.input[2])
        after -= shift * weight[column].reshape(len(after))
        _store(copy.graph, {layer.input[2]: after})
    _store(copy.graph, {before.input[2]: bias})
    return copy


def _before(
    graph: onnx.GraphProto, node: onnx.NodeProto, *, passes: Sequence[str]
) -> onnx.NodeProto | None:
    """Return the convolution whose channels a layer reads, and nothing else reads."""
    made, readers = producers(graph), consumers(graph)
    tensor = node.input[0]
    while len(readers.get(tensor, ())) == 1 and tensor in made:
        producer = made[tensor]
        if producer.op_type == "Conv":
            return producer
        if producer.op_type not in passes:
            return None
        tensor = producer.input[0]
    return None


def _column(node: onnx.NodeProto, channel: int) -> tuple[slice | int, ...]:
    transposed = node.op_type == "Gemm" and not _trans_b(node)
    return (channel,) if transposed else (slice(None), channel)


def _trans_b(node: onnx.NodeProto) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _groups(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _weight(graph: onnx.GraphProto, node: onnx.NodeProto) -> NDArray[np.float32]:
    return _array(graph, node.input[1])


def _array(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    tensor = next((t for t in graph.initializer if t.name == name), None)
    empty = np.zeros((0, 0), np.float32)
    return empty if tensor is None else np.array(numpy_helper.to_array(tensor))


def _store(graph: onnx.GraphProto, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    for tensor in graph.initializer:
        if tensor.name in arrays:
            values = arrays[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
