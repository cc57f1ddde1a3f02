"""An Unsqueeze of several axes as one of each: OpenCV's older engine, and OpenCV 4, take one axis at a time."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.replacing import stored, take_over


class UnsqueezePass(InPlacePass):
    """Split every Unsqueeze of several axes."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite those whose axes are constants, counted from the front."""
        found = [(n, axes) for n in model.graph if len(axes := _axes(n)) > 1 and min(axes) >= 0]
        for node, axes in found:
            _split(model.graph, node, axes)
        return PassResult(model, bool(found))


def _axes(node: ir.Node) -> list[int]:
    """Return the axes of the result that an Unsqueeze adds, in order; none of other nodes."""
    given = node.inputs[1] if node.op_type == "Unsqueeze" else None
    constant = None if given is None else ir.convenience.get_const_tensor(given)
    return [] if constant is None else sorted(int(a) for a in constant.numpy().ravel())


def _split(graph: ir.Graph, node: ir.Node, axes: list[int]) -> None:
    value = node.inputs[0]
    for axis in axes:  # from the front: each is already where the result has it
        name = f"{node.name}/axis_{axis}"
        one = ir.node("Unsqueeze", [value, stored(graph, f"{name}/axes", [axis])], name=name)
        graph.insert_before(node, one)
        value = one.outputs[0]
        value.name = f"{name}.output"
    assert value is not None  # there are at least two axes
    take_over(node.outputs[0], value)
    graph.remove(node, safe=True)
