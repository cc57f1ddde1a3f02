"""The ONNX schema of an op of `finedge/ops.py`, with which onnxscript emits it as a node."""

from __future__ import annotations

from typing import Any

from onnx import defs
from onnxscript import values

from finedge.ops import Op

ATTRIBUTE_TYPES = {float: defs.OpSchema.AttrType.FLOAT, int: defs.OpSchema.AttrType.INT}


def domain(op: Op) -> values.Opset:
    """Return the op's domain in its version."""
    return values.Opset(op.domain, op.version)


def emit(op: Op, *inputs: Any, **attributes: Any) -> Any:
    """Add one node to the graph that is being exported; return its output."""
    # Not through a scripted function: the exporter's version converter inlines those, and the node
    # would not survive.
    return values.Op(domain(op), op.name, _schema(op))(*inputs, **attributes)


def _schema(op: Op) -> defs.OpSchema:
    formal = defs.OpSchema.FormalParameter
    return defs.OpSchema(
        op.name,
        op.domain,
        op.version,
        inputs=[formal(name, "T") for name in op.inputs],
        outputs=[formal("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            defs.OpSchema.Attribute(name, ATTRIBUTE_TYPES[kind], "", required=True)
            for name, kind in op.attributes.items()
        ],
    )
