"""Which nodes of a classifier must stay float32 when the rest becomes float16, and why."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import GraphProto, NodeProto

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
PIXELS = "raw pixels, with a variance in the thousands"
FINAL = "turns logits into probabilities"
SQUARE = "squares, which pass 65504 from 256 on"
RANGE = "exponential, logarithm, root or quotient: small and large numbers meet"
SUM = "sums many terms"
EPSILON = "an epsilon that is 0 in float16"
# Attention's own Softmax is none of these: TensorRT fuses it in float16 only, and adds up in float32 inside.
RANGES = frozenset(
    {
        "Exp",
        "Log",
        "LogSoftmax",
        "Sqrt",
        "Reciprocal",
        "Softplus",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "LpNormalization",
    }
)
SUMS = frozenset({"ReduceSum", "ReduceL1"})
SQUARES = frozenset({"ReduceL2", "ReduceSumSquare", "Pow"})
SMALLEST_EPSILON = 6e-8  # the smallest float16 above 0


def keep_float32(graph: GraphProto) -> dict[str, str]:
    """Return name -> reason for the nodes that float16 would break: pixels, final softmax, squares, quotients, sums.

    A light node between such nodes joins them, so that no value goes float32 -> float16 -> float32.
    """
    constants = constant_names(graph)
    found = dict.fromkeys(_before_layers(graph), PIXELS)
    final = _behind_layers(graph)
    exponents = {name for node in graph.node if node.op_type == "Exp" for name in node.input}
    for node in graph.node:
        below_largest = node.op_type == "Sub" and not exponents.isdisjoint(node.output)
        reason = RANGE if below_largest else _why(node, constants, is_final=node.name in final)
        if reason and node.name not in found:
            found[node.name] = reason
    return found | {
        name: "between nodes that stay float32"
        for name in enclosed(graph, found)
        if name not in found
    }


def enclosed(graph: GraphProto, kept: Iterable[str]) -> set[str]:
    """Return the light nodes that read only what `kept` nodes make and are read only by those, or make a graph output of it."""
    kept, constants = set(kept), constant_names(graph)
    maker = {name: node.name for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    around = {
        node.name: {maker.get(n) for n in node.input if n and n not in constants}
        | {r for n in node.output for r in readers.get(n, ())}
        for node in graph.node
        if node.name not in kept
        and not is_heavy(node)
        and not constants.issuperset(n for n in node.input if n)
    }
    while leaving := [
        name for name, others in around.items() if not others <= kept | around.keys()
    ]:
        for name in leaving:
            del around[name]
    return set(around)


def is_heavy(node: NodeProto) -> bool:
    """Tell whether a node is worth float16 for its speed: a layer, a softmax, attention."""
    return node.op_type in LAYERS or node.op_type == "Softmax" or node.domain not in ("", "ai.onnx")


def constant_names(graph: GraphProto) -> set[str]:
    """Return the names of the graph's constants."""
    return {t.name for t in graph.initializer} | {
        n.output[0] for n in graph.node if n.op_type == "Constant"
    }


def _why(node: NodeProto, constants: set[str], *, is_final: bool) -> str:
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1.0)
    if node.op_type == "Softmax":
        return FINAL if is_final else ""
    if node.op_type in SQUARES or (node.op_type == "Mul" and node.input[0] == node.input[1]):
        return SQUARE
    if node.op_type in RANGES or (node.op_type == "Div" and node.input[1] not in constants):
        return RANGE
    if 0 < epsilon < SMALLEST_EPSILON:
        return EPSILON
    return SUM if node.op_type in SUMS else ""


def _before_layers(graph: GraphProto) -> list[str]:
    """Return the nodes that the graph's inputs reach without passing a layer; a MatMul of pixels only resizes them."""
    reached = {i.name for i in graph.input}
    names = []
    for node in graph.node:
        if (not is_heavy(node) or node.op_type == "MatMul") and reached.intersection(node.input):
            reached.update(node.output)
            if not is_heavy(node):
                names.append(node.name)
    return names


def _behind_layers(graph: GraphProto) -> set[str]:
    """Return the nodes from which no layer is reached."""
    reading: set[str] = set()
    names = set()
    for node in reversed(graph.node):
        if (
            node.op_type in LAYERS
            or node.domain not in ("", "ai.onnx")
            or reading.intersection(node.output)
        ):
            reading.update(node.input)
        else:
            names.add(node.name)
    return names
