"""Reading an ONNX graph for the CPU placement: what lies before, between and behind its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx.inliner import inline_local_functions

from finedge.calib.placement import is_attention


def inline(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return `model` without local functions and with unique node names, and the names of the nodes that were attention."""
    calls = [n for n in model.graph.node if is_attention(n.domain)]
    inlined = inline_local_functions(model)
    seen = Counter({"": 1})
    for node in inlined.graph.node:
        seen[node.name] += 1
        if seen[node.name] > 1:  # the bodies of two calls repeat their names
            node.name = f"{node.name or node.op_type}#{seen[node.name]}"
    standard = [o for o in inlined.opset_import if not is_attention(o.domain)]
    del inlined.opset_import[:]
    inlined.opset_import.extend(standard)
    attention = [name for call in calls for name in _between(inlined.graph, list(call.output), set(call.input))]
    return inlined, attention


def _between(graph: onnx.GraphProto, ends: list[str], starts: set[str]) -> list[str]:
    """Return the nodes that compute `ends` from `starts`."""
    producer = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    while ends:
        node = producer.get(ends.pop())
        if node is not None and node.name not in found:
            found[node.name] = None
            ends += [name for name in node.input if name not in starts]
    return list(found)


def before_first_layer(graph: onnx.GraphProto) -> set[str]:
    """Return the nodes without a Conv or Gemm upstream: they turn pixels into the first layer's input."""
    return _without_layer((node, node.input, node.output) for node in graph.node)


def behind_last_layer(graph: onnx.GraphProto) -> set[str]:
    """Return the nodes without a Conv or Gemm downstream: they make the outputs of what the last layers hand on."""
    return _without_layer((node, node.output, node.input) for node in reversed(graph.node))


def _without_layer(walk: Iterable[tuple[onnx.NodeProto, Iterable[str], Iterable[str]]]) -> set[str]:
    """Return the nodes of a walk (node, the tensors it is reached by, those it leads to) that no layer leads to."""
    reached: set[str] = set()
    names = set()
    for node, by, to in walk:
        if node.op_type in ("Conv", "Gemm") or reached.intersection(by):
            reached.update(to)
        else:
            names.add(node.name)
    return names


def into_softmax(graph: onnx.GraphProto) -> set[str]:
    """Return the convolutions whose output, at most flattened, goes into a Softmax: those that make attention masks."""
    wanted: set[str] = set()
    names = set()
    for node in reversed(graph.node):
        if node.op_type == "Softmax" or (node.op_type in ("Reshape", "Flatten") and wanted.intersection(node.output)):
            wanted.add(node.input[0])
        elif node.op_type == "Conv" and wanted.intersection(node.output):
            names.add(node.name)
    return names


def gates(graph: onnx.GraphProto) -> set[str]:
    """Return the Muls that put a mask, out of a Sigmoid, on what a convolution (or the gate before) hands on."""
    maker: dict[str, str] = {}
    found = set()
    for node in graph.node:
        factors = {maker.get(name) for name in node.input}
        is_gate = node.op_type == "Mul" and "Sigmoid" in factors and not factors.isdisjoint({"Conv", "gate"})
        maker.update(dict.fromkeys(node.output, "gate" if is_gate else node.op_type))
        if is_gate:
            found.add(node.name)
    return found


def layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that have weights."""
    return [n for n in graph.node if n.op_type in ("Conv", "Gemm")]


def initializers(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the constants."""
    return {i.name for i in graph.initializer}
