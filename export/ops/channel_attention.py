"""`finedge::ChannelAttention` in ONNX: the groups are the heads.

The channels of a group attend to each other. It is written like `cross_layer_attention.py`, for the
reasons that stand there.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnxscript import FLOAT, script
from onnxscript import opset20 as op

from finedge.export.ops.schema import domain, emit
from finedge.ops import CHANNEL_ATTENTION as OP
from finedge.train.layers import channel_attention as _  # noqa: F401 - registers the torch op

DOMAIN = domain(OP)


def torch_op() -> Any:
    """Return the torch overload the exporter meets."""
    return torch.ops.finedge.channel_attention.default


def translate(q: Any, k: Any, v: Any, groups: int, scale: float) -> Any:
    """Emit one node."""
    return emit(OP, q, k, v, groups=groups, scale=scale)


def body() -> ir.Function:
    """Return the node's function in standard ops."""
    return ChannelAttention.function_ir


@script(DOMAIN, default_opset=op)
def ChannelAttention(  # noqa: D103, N802
    ca__q: FLOAT[...], ca__k: FLOAT[...], ca__v: FLOAT[...], groups: int, scale: float
) -> FLOAT[...]:
    ca__factor = op.CastLike(op.Constant(value_float=scale), ca__q)
    # [B, C, H, W] -> [B, groups, C / groups, HW] in one Reshape. Readers that drop the first of two
    # read a 0 of the second wrong.
    ca__split = op.Concat(
        op.Constant(value_ints=[0]),
        op.Reshape(op.Constant(value_int=groups), op.Constant(value_ints=[1])),
        op.Constant(value_ints=[-1]),
        axis=0,
    )
    ca__rows = op.Reshape(
        ca__q, op.Concat(ca__split, op.ReduceProd(op.Shape(ca__q, start=2)), axis=0)
    )
    ca__keys = op.Reshape(
        ca__k, op.Concat(ca__split, op.ReduceProd(op.Shape(ca__k, start=2)), axis=0)
    )
    ca__vals = op.Reshape(
        ca__v, op.Concat(ca__split, op.ReduceProd(op.Shape(ca__v, start=2)), axis=0)
    )
    ca__logits = op.MatMul(op.Mul(ca__rows, ca__factor), op.Transpose(ca__keys, perm=[0, 1, 3, 2]))
    ca__shape = op.Concat(op.Constant(value_ints=[0, -1]), op.Shape(ca__v, start=2), axis=0)
    return op.Reshape(op.MatMul(op.Softmax(ca__logits, axis=-1), ca__vals), ca__shape)
