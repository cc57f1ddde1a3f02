"""ONNX faces of the operators of `finedge/ops.py`: how a torch call becomes a node, and the node's body in standard ops."""

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
class Face:
    """The ONNX side of one op: `torch_op` is the overload the exporter meets, `translate` emits the node, `body` is its function."""

    torch_op: Callable[[], Any]
    translate: Callable[..., Any]
    body: Callable[[], ir.Function]


FACES: dict[str, Face] = {
    "CrossLayerAttention": Face(
        cross_layer_attention.torch_op, cross_layer_attention.translate, cross_layer_attention.body
    ),
    "ChannelAttention": Face(
        channel_attention.torch_op, channel_attention.translate, channel_attention.body
    ),
}


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return what `torch.onnx.export(custom_translation_table=...)` takes."""
    return {face.torch_op(): face.translate for face in FACES.values()}


def add_bodies(model: ir.Model) -> None:
    """Give every finedge node of `model` its function, and the attributes by which TensorRT finds a plugin for it."""
    for op in OPS.values():
        check_name(op)
        nodes = [
            n for n in model.graph.all_nodes() if (n.domain, n.op_type) == (op.domain, op.name)
        ]
        if not nodes:
            continue
        function = FACES[op.name].body()
        model.functions[function.identifier()] = function
        model.opset_imports[op.domain] = op.version
        for node in nodes:
            node.attributes["plugin_namespace"] = ir.AttrString("plugin_namespace", op.domain)
            node.attributes["plugin_version"] = ir.AttrString("plugin_version", str(op.version))


def check_name(op: Op) -> None:
    """Refuse an op named like a standard ONNX op: TensorRT's parser looks at the name alone and builds the wrong op silently."""
    if op.name in {schema.name for schema in onnx.defs.get_all_schemas()} or op.name.startswith(
        "TRT_"
    ):
        raise FinedgeError(
            f"op '{op.name}' is named like an ONNX op",
            expected="a name unique over all domains",
            fix="rename it in finedge/ops.py",
        )
