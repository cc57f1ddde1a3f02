"""A 1x1 convolution as the passes see it: read from a graph, written into a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


@dataclass(frozen=True)
class Projection:
    """y = weight x + bias at every position; weight [O, I, 1, 1], bias [O]."""

    source: ir.Value
    weight: NDArray[np.floating]
    bias: NDArray[np.floating]


def read_projection(value: ir.Value | None) -> Projection | None:
    """Read `value` as a 1x1 convolution with constant weights, stride 1, no groups, used once; None for anything else."""
    node = None if value is None else value.producer()
    if (
        value is None
        or node is None
        or node.op_type != "Conv"
        or not has_constants(node)
        or not used_once(value)
    ):
        return None
    weight = constant(node, 1)
    plain = node.attributes.get_int("group", 1) == 1 and set(
        node.attributes.get_ints("strides", [1])
    ) == {1}
    if not plain or weight.shape[2:] != (1, 1) or set(node.attributes.get_ints("pads", [0])) != {0}:
        return None
    bias = constant(node, 2) if len(node.inputs) > 2 else np.zeros(len(weight), weight.dtype)
    return Projection(given(node, 0), weight, bias)


def insert_projection(
    graph: ir.Graph,
    source: ir.Value,
    *,
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    name: str,
    before: ir.Node,
) -> ir.Value:
    """Add a 1x1 convolution of `source` to the graph, before a node; return its output."""
    constants = [
        _initializer(graph, f"{name}.{kind}", array)
        for kind, array in (("weight", weight), ("bias", bias))
    ]
    conv = ir.node("Conv", [source, *constants], {"kernel_shape": [1, 1]}, name=name)
    graph.insert_before(before, conv)
    result = conv.outputs[0]
    result.name = f"{name}.output"
    if source.shape is not None:
        result.shape, result.type = (
            ir.Shape([source.shape[0], len(weight), *source.shape[2:]]),
            source.type,
        )
    return result


def has_constants(node: ir.Node) -> bool:
    """Tell whether every input but the first is a constant."""
    return all(v is not None and v.const_value is not None for v in node.inputs[1:])


def used_once(value: ir.Value) -> bool:
    """Tell whether one node reads `value`, and the graph does not return it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def constant(node: ir.Node, index: int) -> NDArray[np.floating]:
    """Return a constant input as an array."""
    found = given(node, index).const_value
    assert found is not None  # has_constants was asked first
    return found.numpy()


def given(node: ir.Node, index: int) -> ir.Value:
    """Return an input that is not optional."""
    found = node.inputs[index]
    assert found is not None
    return found


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.floating]) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value
