"""Who makes a tensor, who reads it, and what lies before and after the layers of a graph.

The nodes of an ONNX graph stand in running order, so one pass over them is enough for each walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

STANDARD_DOMAINS = ("", "ai.onnx")

NodeTest = Callable[["NodeProto"], bool]


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that makes each tensor; inputs and initializers have none."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor, once for each input that reads it."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            if name:
                readers.setdefault(name, []).append(node)
    return readers


def is_standard(node: NodeProto) -> bool:
    """Tell whether a node is of ONNX itself, not of another domain such as ours."""
    return node.domain in STANDARD_DOMAINS


def downstream(graph: GraphProto, tensors: Iterable[str], *, through: NodeTest) -> list[NodeProto]:
    """Return the nodes that `tensors` reach through nodes that pass the test, in running order."""
    reached = set(tensors) - {""}  # the name of an input or output that is left out
    nodes = []
    for node in graph.node:
        if through(node) and reached.intersection(node.input):
            reached.update(filter(None, node.output))
            nodes.append(node)
    return nodes


def upstream(graph: GraphProto, tensors: Iterable[str], *, through: NodeTest) -> list[NodeProto]:
    """Return the nodes that lead to `tensors` through nodes that pass the test, last node first."""
    reached = set(tensors) - {""}
    nodes = []
    for node in reversed(graph.node):
        if through(node) and reached.intersection(node.output):
            reached.update(filter(None, node.input))
            nodes.append(node)
    return nodes


def before_layers(graph: GraphProto, *, is_layer: NodeTest) -> set[str]:
    """Return the names of the nodes with no layer upstream: they make the first layer's input."""
    made_by_layers = [name for node in graph.node if is_layer(node) for name in node.output]
    return _others(graph, downstream(graph, made_by_layers, through=_any), is_layer)


def after_layers(graph: GraphProto, *, is_layer: NodeTest) -> set[str]:
    """Return the names of the nodes with no layer downstream: they make the graph's outputs."""
    read_by_layers = [name for node in graph.node if is_layer(node) for name in node.input]
    return _others(graph, upstream(graph, read_by_layers, through=_any), is_layer)


def _others(graph: GraphProto, nodes: list[NodeProto], is_layer: NodeTest) -> set[str]:
    outputs = {name for node in nodes for name in node.output}
    rest = (n for n in graph.node if not is_layer(n) and outputs.isdisjoint(n.output))
    return {node.name for node in rest}


def _any(node: NodeProto) -> bool:
    return True
