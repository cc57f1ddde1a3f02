"""`finedge::CrossLayerAttention` in ONNX.

The body has rank 4 with an explicit head axis, and scales q before the first product. In that
form, in FP16 and with at most 256 channels, TensorRT fuses it into one attention kernel by itself.

Formals carry a private prefix because TensorRT's function importer binds by name. A formal named
like a later argument receives the wrong tensor without a warning.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnxscript import FLOAT, script
from onnxscript import opset20 as op

from finedge.export.ops.schema import domain, emit
from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.train.layers import cross_layer_attention as _  # noqa: F401 - registers the torch op

DOMAIN = domain(OP)


def torch_op() -> Any:
    """Return the torch overload the exporter meets."""
    return torch.ops.finedge.cross_layer_attention.default


def translate(q: Any, k: Any, v: Any, scale: float) -> Any:
    """Emit one node."""
    return emit(OP, q, k, v, scale=scale)


def body() -> ir.Function:
    """Return the node's function in standard ops."""
    return CrossLayerAttention.function_ir


@script(DOMAIN, default_opset=op)
def CrossLayerAttention(  # noqa: D103, N802
    cla__q: FLOAT[...], cla__k: FLOAT[...], cla__v: FLOAT[...], scale: float
) -> FLOAT[...]:
    cla__head = op.Constant(value_ints=[1])
    cla__factor = op.CastLike(op.Constant(value_float=scale), cla__q)
    # [B, C, H, W] -> [B, C, HW]. C is written as its number: readers that drop the first of two
    # Reshapes read a 0 of the second wrong.
    cla__batch, cla__rest = op.Constant(value_ints=[0]), op.Constant(value_ints=[-1])
    cla__flat_q = op.Reshape(
        cla__q, op.Concat(cla__batch, op.Shape(cla__q, start=1, end=2), cla__rest, axis=0)
    )
    cla__flat_k = op.Reshape(
        cla__k, op.Concat(cla__batch, op.Shape(cla__k, start=1, end=2), cla__rest, axis=0)
    )
    cla__flat_v = op.Reshape(
        cla__v, op.Concat(cla__batch, op.Shape(cla__v, start=1, end=2), cla__rest, axis=0)
    )
    # [B, C, HW] -> [B, 1, HW, C]
    cla__rows = op.Transpose(op.Unsqueeze(cla__flat_q, cla__head), perm=[0, 1, 3, 2])
    cla__keys = op.Unsqueeze(cla__flat_k, cla__head)
    cla__vals = op.Transpose(op.Unsqueeze(cla__flat_v, cla__head), perm=[0, 1, 3, 2])
    cla__weights = op.Softmax(op.MatMul(op.Mul(cla__rows, cla__factor), cla__keys), axis=-1)
    cla__mixed = op.Transpose(op.MatMul(cla__weights, cla__vals), perm=[0, 1, 3, 2])
    # [0, -1]: the batch and the channels. All else is known at export, and a constant once the body
    # is inlined.
    cla__shape = op.Concat(
        op.Constant(value_ints=[0, -1]),
        op.Shape(cla__q, start=2, end=4),
        axis=0,
    )
    return op.Reshape(cla__mixed, cla__shape)
