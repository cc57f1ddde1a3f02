"""An Unsqueeze of several axes becomes one for each axis.

OpenCV's older engine, and OpenCV 4, take one axis at a time.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.values import add_int64, replace_value


class UnsqueezePass(InPlacePass):
    """Split every Unsqueeze of several axes."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite those whose axes are constants, counted from the front."""
        every = [(node, _axes(node)) for node in model.graph]
        nodes = [(node, axes) for node, axes in every if len(axes) > 1 and min(axes) >= 0]
        for node, axes in nodes:
            _split(model.graph, node, axes)
        return PassResult(model, bool(nodes))


def _axes(node: ir.Node) -> list[int]:
    """Return the axes of the result that an Unsqueeze adds, in order; none of other nodes."""
    axes = node.inputs[1] if node.op_type == "Unsqueeze" else None
    constant = None if axes is None else ir.convenience.get_const_tensor(axes)
    return [] if constant is None else sorted(int(a) for a in constant.numpy().ravel())


def _split(graph: ir.Graph, node: ir.Node, axes: list[int]) -> None:
    value = node.inputs[0]
    for axis in axes:  # from the front: each is already where the result has it
        name = f"{node.name}/axis_{axis}"
        one = ir.node("Unsqueeze", [value, add_int64(graph, f"{name}/axes", [axis])], name=name)
        graph.insert_before(node, one)
        value = one.outputs[0]
        value.name = f"{name}.output"
    assert value is not None  # there are at least two axes
    replace_value(node.outputs[0], value)
    graph.remove(node, safe=True)
