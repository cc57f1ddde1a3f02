"""Folds the nodes of one of our operators to one node, which a plugin implements.

It is the inverse of `finedge.graph.inlining`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.edit import copied, drop_unread_initializers, replace_items
from finedge.graph.tags import ATTRIBUTES, NODE, OP, READS, WRITES, tags
from finedge.ops import Op

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


@dataclass(frozen=True)
class _Region:
    """The nodes of one call by their index in the graph, and the tags of the first."""

    tags: dict[str, str]
    nodes: dict[int, NodeProto]


def fold(model: ModelProto, op: Op) -> ModelProto:
    """Return a copy of `model` in which every call of `op` is one node again, without a function.

    Raises:
        BundleError: the nodes of a call do not belong together any more: another program changed
            the file.
    """
    from onnx import helper

    folded = copied(model)
    graph, regions, calls = folded.graph, _regions(folded.graph, op), {}
    for region in regions:
        place, call = _call(region, op)
        calls[place] = call
        _check_whole(region, call, graph, place)
    inside = {i for region in regions for i in region.nodes}
    nodes = [calls.get(i, n) for i, n in enumerate(graph.node) if i in calls or i not in inside]
    replace_items(graph.node, nodes)
    drop_unread_initializers(graph)
    _drop_unused_types(graph)
    if calls and all(o.domain != op.domain for o in folded.opset_import):
        folded.opset_import.append(helper.make_opsetid(op.domain, op.version))
    return folded


def _regions(graph: GraphProto, op: Op) -> list[_Region]:
    regions: dict[str, _Region] = {}
    for index, node in enumerate(graph.node):
        node_tags = tags(node)
        if node_tags.get(OP) == op.name:
            regions.setdefault(node_tags.get(NODE, ""), _Region(node_tags, {})).nodes[index] = node
    return list(regions.values())


def _call(region: _Region, op: Op) -> tuple[int, NodeProto]:
    """Return the call of a region and its place: the index of the node that makes its result."""
    from onnx import helper

    inputs: dict[str, set[str]] = {name: set() for name in op.inputs}
    makers = {}
    for index, node in region.nodes.items():
        node_tags = tags(node)
        for formal, actual in zip(node_tags.get(READS, "").split(","), node.input, strict=False):
            if formal:
                inputs.setdefault(formal, set()).add(actual)
        if WRITES in node_tags:
            makers[index] = node.output[0]
    each_once = all(len(names) == 1 for names in inputs.values())
    if len(makers) != 1 or set(inputs) != set(op.inputs) or not each_once:
        raise _broken(region)
    ((place, result),) = makers.items()
    arguments = [next(iter(inputs[name])) for name in op.inputs]
    try:
        call = helper.make_node(op.name, arguments, [result], region.tags[NODE], domain=op.domain)
        attributes = json.loads(region.tags[ATTRIBUTES])
        call.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _broken(region) from error
    return place, call


def _check_whole(region: _Region, call: NodeProto, graph: GraphProto, place: int) -> None:
    """Refuse a region that reads or returns more than its call does."""
    outputs = {name for node in region.nodes.values() for name in node.output}
    stored = {t.name for t in graph.initializer}
    read = {name for node in region.nodes.values() for name in node.input if name}
    others = [node for i, node in enumerate(graph.node) if i not in region.nodes]
    read_outside = {name for node in others for name in node.input}
    read_outside |= {output.name for output in graph.output}
    if (
        read - outputs - stored - set(call.input)
        or (outputs - set(call.output)) & read_outside
        or max(region.nodes) > place
    ):
        raise _broken(region)


def _broken(region: _Region) -> BundleError:
    return BundleError(
        f"the nodes of {region.tags.get(OP)} '{region.tags.get(NODE)}' are not whole",
        expected="the region that finedge export wrote",
        fix="export again, or --attention decomposed",
    )


def _drop_unused_types(graph: GraphProto) -> None:
    """Remove the types of tensors that the graph no longer has."""
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    names |= {value.name for value in (*graph.input, *graph.output)}
    kept = [info for info in graph.value_info if info.name in names]
    if len(kept) != len(graph.value_info):
        replace_items(graph.value_info, kept)
