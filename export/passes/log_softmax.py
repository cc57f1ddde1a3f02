"""log softmax(x) = d - log(sum(exp(d))) with d = x - max(x), written out.

Readers compute LogSoftmax in different ways. OpenCV (4.12 and 5.0) takes the logarithm of its
Softmax, which is 0 where a logit is 104 below the largest: the result is -inf. Its ReduceLogSumExp
does not subtract the maximum either. PyTorch and ONNX Runtime compute this form inside.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.values import add_int64, input_of, replace_value


class LogSoftmaxPass(InPlacePass):
    """Write every LogSoftmax in ops that all readers compute alike."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every LogSoftmax."""
        nodes = [n for n in model.graph if n.op_type == "LogSoftmax"]
        for node in nodes:
            _write_out(model.graph, node)
        return PassResult(model, bool(nodes))


def _write_out(graph: ir.Graph, node: ir.Node) -> None:
    logits = input_of(node, 0)
    axis = add_int64(graph, f"{node.name}/axis", [node.attributes.get_int("axis", -1)])
    largest = _add(node, "ReduceMax", logits, axis)
    below = _add(node, "Sub", logits, largest)
    total = _add(node, "ReduceSum", _add(node, "Exp", below), axis)
    replace_value(node.outputs[0], _add(node, "Sub", below, _add(node, "Log", total), last=True))
    graph.remove(node, safe=True)


def _add(before: ir.Node, op: str, *inputs: ir.Value, last: bool = False) -> ir.Value:
    """Insert a node before LogSoftmax; return its output."""
    name = f"{before.name}/{op}{'.last' if last else ''}"
    node = ir.node(op, inputs, name=name)
    assert before.graph is not None  # the pass read it there
    before.graph.insert_before(before, node)
    node.outputs[0].name = f"{name}.output"
    return node.outputs[0]
