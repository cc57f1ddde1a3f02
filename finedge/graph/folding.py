"""Folds the nodes of one of our operators to one node, which a plugin implements.

The inverse of `inlining`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.tags import ATTRIBUTES, NODE, OP, READS, WRITES, copied, tags
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
    kept = [calls.get(i, n) for i, n in enumerate(graph.node) if i in calls or i not in inside]
    nodes = [copied(n) for n in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
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
    """Return the call of a region and where it stands: where its answer is made."""
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
    if (
        len(makers) != 1
        or set(inputs) != set(op.inputs)
        or any(len(names) != 1 for names in inputs.values())
    ):
        raise _broken(region)
    ((place, answer),) = makers.items()
    arguments = [next(iter(inputs[name])) for name in op.inputs]
    try:
        call = helper.make_node(op.name, arguments, [answer], region.tags[NODE], domain=op.domain)
        attributes = json.loads(region.tags[ATTRIBUTES])
        call.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _broken(region) from error
    return place, call


def _check_whole(region: _Region, call: NodeProto, graph: GraphProto, place: int) -> None:
    """Refuse a region that reads or shows more than its call does."""
    outputs = {name for node in region.nodes.values() for name in node.output}
    stored = {t.name for t in graph.initializer}
    read = {name for node in region.nodes.values() for name in node.input if name}
    others = [node for i, node in enumerate(graph.node) if i not in region.nodes]
    shown = {o.name for o in graph.output} | {name for node in others for name in node.input}
    if (
        read - outputs - stored - set(call.input)
        or (outputs - set(call.output)) & shown
        or max(region.nodes) > place
    ):
        raise _broken(region)


def _broken(region: _Region) -> BundleError:
    what = f"the nodes of {region.tags.get(OP)} '{region.tags.get(NODE)}' are not whole"
    return BundleError(
        what,
        expected="the region that finedge export wrote",
        fix="export again, or --attention decomposed",
    )


def _drop_unread(graph: GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    known = (
        read | {name for node in graph.node for name in node.output} | {i.name for i in graph.input}
    )
    for field, names in ((graph.initializer, read), (graph.value_info, known)):
        kept = [copied(item) for item in field if item.name in names]
        if len(kept) != len(field):
            del field[:]
            field.extend(kept)
