"""Values of an onnx_ir graph: read the inputs of a node, add an initializer, replace a value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def input_of(node: ir.Node, index: int) -> ir.Value:
    """Return an input that is not optional."""
    value = node.inputs[index]
    assert value is not None
    return value


def constant_input(node: ir.Node, index: int) -> NDArray[np.floating]:
    """Return a constant input as an array; ask `has_constant_inputs` first."""
    tensor = input_of(node, index).const_value
    assert tensor is not None
    return tensor.numpy()


def has_constant_inputs(node: ir.Node) -> bool:
    """Tell whether every input but the first is a constant."""
    return all(v is not None and v.const_value is not None for v in node.inputs[1:])


def used_once(value: ir.Value) -> bool:
    """Tell whether one node reads `value`, and the graph does not return it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add an array to the graph as an initializer; return its value."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def add_int64(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    """Add an int64 initializer: axes or a shape."""
    return add_initializer(graph, name, np.array(numbers, np.int64))


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of `old` read `new`.

    `new` takes the name, shape and type of `old`, so that taps and outputs keep theirs.
    """
    name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = f"{name}/replaced", name
