"""A mask [B, 1, H, W] of a map [B, C, H, W] passes through a Reshape to the shape that it has.

OpenCV 5.0 keeps what convolutions make in blocks of 8 channels, and puts a block of one channel on blocks of 8 as if it had as many;
it also adds a smaller tensor inside the convolution in front of it, which asks for equal shapes; and an Add of quantized tensors
with a Sigmoid behind it, both in INT8, loses the Sigmoid. What a Reshape makes is kept in no blocks and joined with nothing.
TensorRT for RTX builds the same layers; ONNX Runtime takes as long in float, and in INT8 1 % (sa) and 6 % (csca) longer, for
transpositions (Lite0, 64 pixels, one thread). The mask of a squeeze-and-excitation [B, C, 1, 1] is multiplied right as it is.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.replacing import stored

MAPS = 4  # axes: batch, channels, rows, columns


class BroadcastPass(InPlacePass):
    """Put a Reshape behind what a Mul or Add of maps broadcasts in a way OpenCV does not, and behind such a sum."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the inputs of every Mul and Add of two maps of different shapes."""
        found = [(n, i) for n in model.graph for i in _broadcast(n)]
        for node, index in found:
            _reshape(node, index)
        sums = dict.fromkeys(n.outputs[0] for n, _ in found if n.op_type == "Add")
        for total in (s for s in sums if _sizes(s) is not None):
            for reader, index in list(total.uses()):
                _reshape(reader, index)
        return PassResult(model, bool(found))


def _broadcast(node: ir.Node) -> list[int]:
    """Return the inputs to reshape: masks of one channel, and whatever is smaller than the sum."""
    shapes = [_sizes(v) for v in node.inputs] if node.op_type in ("Mul", "Add") else []
    if len(shapes) != 2 or None in shapes or shapes[0] == shapes[1]:
        return []
    known = [s for s in shapes if s is not None]
    whole = tuple(max(sizes) for sizes in zip(*known, strict=True))
    smaller = [i for i, s in enumerate(known) if s != whole]
    return [i for i in smaller if node.op_type == "Add" or known[i] == (1, *whole[1:])]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return (C, H, W) of a map that the graph computes; None for anything else."""
    if (
        value is None
        or value.const_value is not None
        or value.shape is None
        or len(value.shape) != MAPS
    ):
        return None
    sizes = tuple(d for d in value.shape[1:] if isinstance(d, int))
    return sizes if len(sizes) == MAPS - 1 else None


def _reshape(node: ir.Node, index: int) -> None:
    """Put a Reshape between a node and one of its inputs, a map of known size."""
    graph, value, sizes = node.graph, node.inputs[index], _sizes(node.inputs[index])
    assert graph is not None
    assert value is not None
    assert sizes is not None
    name = f"{node.name}/operand_{index}"
    shape = stored(graph, f"{name}/shape", [-1, *sizes])
    plain = ir.node("Reshape", [value, shape], name=name)
    graph.insert_before(node, plain)
    result = plain.outputs[0]
    result.name, result.shape, result.type = f"{name}.output", value.shape, value.type
    node.replace_input_with(index, result)
