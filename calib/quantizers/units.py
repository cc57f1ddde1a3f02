"""Units: the parts of a model that a search puts into float, or back into INT8, as one.

A unit is a layer with stored weights, or one call of an attention operator. What follows a layer
and makes no products of its own (its activation, the residual Add, a pooling) goes with it: a
tensor between two units in float is then not quantized either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import onnx

from finedge.graph.edit import with_unique_names
from finedge.graph.inlining import inline
from finedge.graph.macs import product_macs
from finedge.graph.patterns import is_layer
from finedge.graph.sizes import shapes_of
from finedge.graph.tags import NODE, tags
from finedge.graph.walk import after_layers, producers

ATTENTION = "attention"
WEIGHT = ".weight"


@dataclass(frozen=True)
class Unit:
    """What is quantized, or left in float, as one.

    Attributes:
        name: the layer's node name, or the name of the attention call.
        kind: Conv, "depthwise Conv", Gemm or attention.
        module: where the layer is in the PyTorch model, by the name of its weight; else its name.
        nodes: the names of all nodes of the unit: what a plan's `keep_float` takes.
        macs: its multiply-accumulates for one image.
    """

    name: str
    kind: str
    nodes: frozenset[str]
    macs: int
    module: str = ""


@dataclass(frozen=True)
class Units:
    """The units of a model that INT8 computes, in running order.

    Attributes:
        all: the units.
        macs: of the whole model, also of what always stays in float.
    """

    all: tuple[Unit, ...]
    macs: int

    def nodes_of(self, names: Collection[str]) -> frozenset[str]:
        """Return the nodes of the units with these names."""
        return frozenset().union(*(unit.nodes for unit in self.all if unit.name in names))

    def int8_share(self, in_float: Collection[str]) -> float:
        """Return the share of the model's multiply-accumulates that compute in INT8."""
        macs = sum(unit.macs for unit in self.all if unit.name not in in_float)
        return macs / self.macs if self.macs else 0.0


def find_units(model: onnx.ModelProto, int8: Collection[str]) -> Units:
    """Return the units of a float model.

    Args:
        model: the float model, with or without functions.
        int8: the names of the nodes that a quantizer puts into INT8 (`QuantizationReport.int8`);
            for attention the name of the call, or of a node inside it.
    """
    inlined = onnx.shape_inference.infer_shapes(with_unique_names(inline(model)), data_prop=True)
    graph = inlined.graph
    owners = _owners(graph)
    members: dict[str, set[str]] = defaultdict(set)
    for name, owner in owners.items():
        members[owner].add(name)
    macs = product_macs(graph, shapes_of(inlined))
    layers = {node.name: node for node in graph.node if is_layer(node)}
    units = [
        Unit(
            owner,
            _kind(graph, owner),
            frozenset(nodes),
            sum(macs.get(n, 0) for n in nodes),
            _module(layers.get(owner), owner),
        )
        for owner, nodes in members.items()
        if not nodes.isdisjoint(int8) or owner in int8
    ]
    return Units(tuple(units), sum(macs.values()))


def _module(layer: onnx.NodeProto | None, name: str) -> str:
    """Return a layer's path in the PyTorch model; the exporter names weights by it."""
    weight = "" if layer is None else layer.input[1]
    if not weight.endswith(WEIGHT):
        return name
    return weight.removesuffix(WEIGHT).removeprefix("model.")


def _owners(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the unit of each node, in running order; nodes before the first layer have none.

    A node without products belongs to the last unit that it reads from: a residual Add to its
    main branch.
    """
    made, order = producers(graph), {node.name: i for i, node in enumerate(graph.node)}
    last = after_layers(graph, is_layer=is_layer)
    owners: dict[str, str] = {}
    for node in graph.node:
        if call := tags(node).get(NODE):
            owners[node.name] = call
        elif is_layer(node):
            owners[node.name] = node.name
        elif node.name not in last:
            sources = [made[name].name for name in node.input if name in made]
            owned = [name for name in sources if name in owners]
            if owned:
                owners[node.name] = owners[max(owned, key=lambda name: order[name])]
    return owners


def _kind(graph: onnx.GraphProto, name: str) -> str:
    node = next((n for n in graph.node if n.name == name and is_layer(n)), None)
    if node is None:
        return ATTENTION
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    weight = next((t for t in graph.initializer if t.name == node.input[1]), None)
    depthwise = groups > 1 and weight is not None and weight.dims[1] == 1
    return f"depthwise {node.op_type}" if depthwise else node.op_type
