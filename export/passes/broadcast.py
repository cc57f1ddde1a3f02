"""A mask [B, 1, H, W] of a map [B, C, H, W] passes through a Reshape to the shape that it has.

Without it, OpenCV 5.0 computes three things wrong:

- It keeps the outputs of convolutions in blocks of 8 channels. It combines a block of one channel
  with blocks of 8 as if both had 8.
- It adds a smaller tensor inside the convolution before it, which asks for equal shapes.
- An Add of quantized tensors with a Sigmoid after it, both in INT8, loses the Sigmoid.

The output of a Reshape is not kept in blocks and not fused with another node. TensorRT for RTX
builds the same layers. ONNX Runtime takes as long in float. In INT8 it takes 1 % (sa) and 6 %
(csca) longer, because it transposes (Lite0, 64 pixels, one thread). The mask of a
squeeze-and-excitation [B, C, 1, 1] is multiplied correctly without a Reshape.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from finedge.export.passes.values import add_int64

AXES = 4  # of a map: batch, channels, rows, columns


class BroadcastPass(InPlacePass):
    """Put a Reshape after each input that a Mul or Add of maps broadcasts and OpenCV does not.

    Such a sum gets one too.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the inputs of every Mul and Add of two maps of different shapes."""
        operands = [(n, i) for n in model.graph for i in _broadcast(n)]
        for node, index in operands:
            _reshape(node, index)
        sums = dict.fromkeys(n.outputs[0] for n, _ in operands if n.op_type == "Add")
        for total in (s for s in sums if _sizes(s) is not None):
            for reader, index in list(total.uses()):
                _reshape(reader, index)
        return PassResult(model, bool(operands))


def _broadcast(node: ir.Node) -> list[int]:
    """Return the inputs to reshape: masks of one channel, and whatever is smaller than the sum."""
    shapes = [_sizes(v) for v in node.inputs] if node.op_type in ("Mul", "Add") else []
    if len(shapes) != 2 or None in shapes or shapes[0] == shapes[1]:
        return []
    maps = [s for s in shapes if s is not None]
    whole = tuple(max(sizes) for sizes in zip(*maps, strict=True))
    smaller = [i for i, s in enumerate(maps) if s != whole]
    return [i for i in smaller if node.op_type == "Add" or maps[i] == (1, *whole[1:])]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return (C, H, W) of a map that the graph computes; None for anything else."""
    if value is None or value.const_value is not None or value.shape is None:
        return None
    if len(value.shape) != AXES:
        return None
    sizes = tuple(d for d in value.shape[1:] if isinstance(d, int))
    return sizes if len(sizes) == AXES - 1 else None


def _reshape(node: ir.Node, index: int) -> None:
    """Put a Reshape between a node and one of its inputs, a map of known size."""
    graph, value, sizes = node.graph, node.inputs[index], _sizes(node.inputs[index])
    assert graph is not None
    assert value is not None
    assert sizes is not None
    name = f"{node.name}/operand_{index}"
    shape = add_int64(graph, f"{name}/shape", [-1, *sizes])
    plain = ir.node("Reshape", [value, shape], name=name)
    graph.insert_before(node, plain)
    result = plain.outputs[0]
    result.name, result.shape, result.type = f"{name}.output", value.shape, value.type
    node.replace_input_with(index, result)
