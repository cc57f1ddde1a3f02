"""Reading an ONNX graph for the CPU placement: what lies before, between and behind its layers."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


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
        if node.op_type == "Softmax" or (
            node.op_type in ("Reshape", "Flatten") and wanted.intersection(node.output)
        ):
            wanted.add(node.input[0])
        elif node.op_type == "Conv" and wanted.intersection(node.output):
            names.add(node.name)
    return names


def gates(graph: onnx.GraphProto) -> set[str]:
    """Return the Muls that put a mask, out of a Sigmoid, on what a convolution (or the gate before) hands on."""
    maker: dict[str, str] = {}
    found = set()
    for node in graph.node:
        if node.op_type == "Reshape":  # a mask keeps its values
            maker[node.output[0]] = maker.get(node.input[0], "")
            continue
        factors = {maker.get(name) for name in node.input}
        is_gate = (
            node.op_type == "Mul"
            and "Sigmoid" in factors
            and not factors.isdisjoint({"Conv", "gate"})
        )
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
