"""A value of a graph takes the place of another, under its name: what a pass does at its end."""

from __future__ import annotations

import onnx_ir as ir


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let all who read `old` read `new`; it takes the name, shape and type too, so that taps and outputs keep theirs."""
    name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = f"{name}/replaced", name


def stored(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    """Add an int64 initializer: axes or a shape."""
    tensor = ir.tensor(numbers, dtype=ir.DataType.INT64, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape([len(numbers)]),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
