"""Parts of a classifier's graph that the passes look for: layers, gates, masks, the first nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finedge.graph.walk import consumers, upstream

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

QUANTIZED_LAYERS = frozenset({"Conv", "Gemm"})  # the layers with stored weights
PRODUCTS = QUANTIZED_LAYERS | {"MatMul"}
TO_PLANES = [0, 3, 1, 2]  # NHWC to NCHW


def layers(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes that have weights: Conv and Gemm."""
    return [node for node in graph.node if is_layer(node)]


def is_layer(node: NodeProto) -> bool:
    """Tell whether a node has weights: Conv or Gemm."""
    return node.op_type in QUANTIZED_LAYERS


def mask_convolutions(graph: GraphProto) -> set[str]:
    """Return the names of the convolutions whose output, at most flattened, goes into a Softmax.

    They make the masks of attention pooling.
    """
    logits = {node.input[0] for node in graph.node if node.op_type == "Softmax"}
    flat = upstream(graph, logits, through=lambda n: n.op_type in ("Reshape", "Flatten"))
    tensors = logits | {node.input[0] for node in flat}
    convolutions = (node for node in graph.node if node.op_type == "Conv")
    return {node.name for node in convolutions if tensors.intersection(node.output)}


def gated_tensors(graph: GraphProto) -> set[str]:
    """Return the outputs of the gates: Muls of a mask with a convolution's, or a gate's, output.

    The mask comes out of a Sigmoid. A Reshape between them changes nothing.
    """
    makers: dict[str, str] = {}  # the op that made a tensor's values, "gate" for a gate
    gates = set()
    for node in graph.node:
        if node.op_type == "Reshape":
            makers[node.output[0]] = makers.get(node.input[0], "")
            continue
        factors = {makers.get(name) for name in node.input}
        is_product = node.op_type == "Mul" and "Sigmoid" in factors
        is_gate = is_product and not factors.isdisjoint({"Conv", "gate"})
        makers.update(dict.fromkeys(node.output, "gate" if is_gate else node.op_type))
        if is_gate:
            gates.add(node.output[0])
    return gates


def frames_to_planes(graph: GraphProto) -> tuple[NodeProto, NodeProto] | None:
    """Return the Cast and the Transpose (NHWC to NCHW) that a graph begins with.

    None where it begins otherwise, for example with the resize of whole frames.
    """
    readers = consumers(graph)
    head: list[NodeProto] = []
    tensor = graph.input[0].name
    for op_type in ("Cast", "Transpose"):
        nodes = readers.get(tensor, [])
        if [node.op_type for node in nodes] != [op_type]:
            return None
        head += nodes
        tensor = nodes[0].output[0]
    cast, transpose = head
    axes = next((list(a.ints) for a in transpose.attribute if a.name == "perm"), [])
    return (cast, transpose) if axes == TO_PLANES else None
