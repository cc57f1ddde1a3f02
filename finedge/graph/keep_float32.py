"""Which nodes of a classifier must stay float32 when the rest becomes float16, and why."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import GraphProto, NodeProto

from finedge.graph.constants import constant_names
from finedge.graph.patterns import PRODUCTS
from finedge.graph.walk import after_layers, consumers, downstream, is_standard, producers

PIXELS = "raw pixels, with a variance in the thousands"
FINAL = "turns logits into probabilities"
SQUARE = "squares, which pass 65504 from 256 on"
RANGE = "exponential, logarithm, root or quotient: small and large numbers meet"
SUM = "sums many terms"
EPSILON = "an epsilon that is 0 in float16"
BETWEEN = "between nodes that stay float32"
# The Softmax of attention is none of these. TensorRT fuses it in float16 only, and adds up in
# float32 inside.
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
    """Return name -> reason for the nodes that float16 would break.

    They handle pixels, the final softmax, squares, quotients or sums. A light node between such
    nodes joins them, so that no value goes float32 -> float16 -> float32.
    """
    constants = constant_names(graph)
    reasons = dict.fromkeys(_before_layers(graph), PIXELS)
    final = after_layers(graph, is_layer=_is_product)
    exponents = {name for node in graph.node if node.op_type == "Exp" for name in node.input}
    for node in graph.node:
        below_largest = node.op_type == "Sub" and not exponents.isdisjoint(node.output)
        reason = RANGE if below_largest else _reason(node, constants, is_final=node.name in final)
        if reason:
            reasons.setdefault(node.name, reason)
    between = enclosed_nodes(graph, reasons) - reasons.keys()
    return reasons | dict.fromkeys(between, BETWEEN)


def enclosed_nodes(graph: GraphProto, names: Iterable[str]) -> set[str]:
    """Return the names of the light nodes that the nodes of `names` enclose.

    They read only what those nodes make. Only those nodes read them, or they make a graph output.
    """
    kept, constants = set(names), constant_names(graph)
    makers, readers = producers(graph), consumers(graph)
    neighbours: dict[str, set[str | None]] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if node.name in kept or is_heavy(node) or not inputs:
            continue
        sources = {makers[name].name if name in makers else None for name in inputs}
        targets = {reader.name for name in node.output for reader in readers.get(name, ())}
        neighbours[node.name] = sources | targets
    while True:
        inside = kept | neighbours.keys()
        leaving = [name for name, others in neighbours.items() if not others <= inside]
        if not leaving:
            return set(neighbours)
        for name in leaving:
            del neighbours[name]


def is_heavy(node: NodeProto) -> bool:
    """Tell whether a node is worth float16 for its speed: a layer, a softmax, attention."""
    return _is_product(node) or node.op_type == "Softmax"


def _is_product(node: NodeProto) -> bool:
    return node.op_type in PRODUCTS or not is_standard(node)


def _reason(node: NodeProto, constants: set[str], *, is_final: bool) -> str:
    """Return why a node stays float32, judged by itself; "" where it need not."""
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
    """Return the nodes that the graph's inputs reach without passing a layer.

    A MatMul of pixels only resizes them, so it is passed.
    """
    inputs = [value.name for value in graph.input]
    nodes = downstream(graph, inputs, through=lambda n: not is_heavy(n) or n.op_type == "MatMul")
    return [node.name for node in nodes if not is_heavy(node)]
