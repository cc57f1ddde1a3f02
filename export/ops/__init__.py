"""Our operators (`finedge/ops.py`) in ONNX: how a torch call becomes a node, and the node's body.

The body is a function in standard ops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from finedge.errors import FinedgeError
from finedge.export.ops import channel_attention, cross_layer_attention
from finedge.ops import OPS, Op


@dataclass(frozen=True)
class OnnxOp:
    """The ONNX side of one operator.

    Attributes:
        torch_op: returns the torch overload that the exporter meets.
        translate: emits the node.
        body: returns the node's function.
    """

    torch_op: Callable[[], Any]
    translate: Callable[..., Any]
    body: Callable[[], ir.Function]


ONNX_OPS: dict[str, OnnxOp] = {
    "CrossLayerAttention": OnnxOp(
        cross_layer_attention.torch_op, cross_layer_attention.translate, cross_layer_attention.body
    ),
    "ChannelAttention": OnnxOp(
        channel_attention.torch_op, channel_attention.translate, channel_attention.body
    ),
}


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return what `torch.onnx.export(custom_translation_table=...)` takes."""
    return {op.torch_op(): op.translate for op in ONNX_OPS.values()}


def add_bodies(model: ir.Model) -> None:
    """Give every finedge node of `model` its function.

    Each node also gets the attributes by which TensorRT finds a plugin for it.
    """
    for op in OPS.values():
        check_name(op)
        every = model.graph.all_nodes()
        nodes = [n for n in every if (n.domain, n.op_type) == (op.domain, op.name)]
        if not nodes:
            continue
        function = ONNX_OPS[op.name].body()
        model.functions[function.identifier()] = function
        model.opset_imports[op.domain] = op.version
        for node in nodes:
            node.attributes["plugin_namespace"] = ir.AttrString("plugin_namespace", op.domain)
            node.attributes["plugin_version"] = ir.AttrString("plugin_version", str(op.version))


def check_name(op: Op) -> None:
    """Refuse an op named like a standard ONNX op.

    TensorRT's parser looks at the name alone and builds the wrong op silently.
    """
    standard = {schema.name for schema in onnx.defs.get_all_schemas()}
    if op.name in standard or op.name.startswith("TRT_"):
        raise FinedgeError(
            f"op '{op.name}' is named like an ONNX op",
            expected="a name unique over all domains",
            fix="rename it in finedge/ops.py",
        )
