"""Tags on the nodes of our operators: each names the call that it came from.

Few readers expand model-local functions (OpenVINO and cv2.dnn do not), and a file must open in all
of them. So the files hold standard ops only, and `metadata_props` of a node (ONNX IR 10) say which
call it was part of:

    finedge.op, finedge.version    the operator, e.g. CrossLayerAttention 1
    finedge.node                   the name of the call: the same on all nodes of one call
    finedge.attributes             its attributes as JSON
    finedge.reads                  the operator's input (q, k, v) or "" of each input: "q,"
    finedge.writes                 the operator's output, on the node that makes it

`finedge.graph.folding` makes one node of them again, exactly the call: a plugin is found by it.
It uses no tensor's name. So a pass may rename tensors, put Q/DQ pairs around the region, or change
its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from finedge.graph.edit import copied
from finedge.ops import DOMAIN

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OP, VERSION, NODE, ATTRIBUTES = (
    f"{DOMAIN}.{key}" for key in ("op", "version", "node", "attributes")
)
READS, WRITES = f"{DOMAIN}.reads", f"{DOMAIN}.writes"


def tags(node: NodeProto) -> dict[str, str]:
    """Return the tags of a node; empty where it is not part of one of our operators."""
    return {p.key: p.value for p in node.metadata_props if p.key.startswith(f"{DOMAIN}.")}


def inner_tensors(graph: GraphProto) -> set[str]:
    """Return the names of the tensors inside our operators, without the results of the calls."""
    tagged = ((node, tags(node)) for node in graph.node)
    inside = (node for node, keys in tagged if NODE in keys and WRITES not in keys)
    return {name for node in inside for name in node.output}


def without_metadata(model: ModelProto) -> ModelProto:
    """Return a copy of `model` without any metadata: only the computation is left."""
    plain = copied(model)
    del plain.metadata_props[:]
    del plain.graph.metadata_props[:]
    for node in plain.graph.node:
        del node.metadata_props[:]
    return plain


def add_tags(node: NodeProto, values: Mapping[str, str]) -> None:
    """Add tags to a node, values by key."""
    for key, value in values.items():
        node.metadata_props.add(key=key, value=value)
