"""float16 between the INT8 parts of a Q/DQ file; the INT8 parts stay as TensorRT fuses them.

Strongly typed TensorRT runs what lies between DequantizeLinear and QuantizeLinear as the file says:
in float32. Attention is then two float32 products and a softmax. In float16 it is one fused kernel
(head sizes up to 256). Scales stay float32: in float16 they turn subnormal.
"""

from __future__ import annotations

import logging

from onnx import GraphProto, ModelProto, NodeProto

from finedge.graph.constants import constant_names
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.keep_float32 import is_heavy, keep_float32
from finedge.graph.patterns import PRODUCTS
from finedge.graph.walk import producers, upstream

log = logging.getLogger(__name__)

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
POOLS = frozenset({"MaxPool", "GlobalAveragePool", "AveragePool", "ReduceMean"})
# TensorRT runs these inside the kernel of the convolution before them, up to a QuantizeLinear.
EPILOGUE = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "Elu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mul",
        "Relu",
        "Sigmoid",
        "Sub",
        "Tanh",
    }
)
# These move numbers without changing them.
MOVES = frozenset({"Concat", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def float16_islands(model: ModelProto) -> ModelProto:
    """Return a Q/DQ model whose other nodes compute in float16, between Casts.

    Graph inputs and outputs keep their types. These stay float32:

    - Q/DQ nodes with their scales, quantized layers and poolings;
    - element-wise operations after such a layer that lead to a QuantizeLinear or read nothing else;
    - what float16 would break (`finedge.graph.keep_float32`); its layers and softmaxes are logged.

    Args:
        model: the portable INT8 file, with its functions, with them inlined, or with their bodies
            taken away for a plugin.
    """
    named = with_unique_names(model)
    reasons = keep_float32(named.graph)
    kept = quantized_nodes(named.graph) | reasons.keys()
    heavy = [n.name for n in named.graph.node if n.name in reasons and is_heavy(n)]
    log.info(
        "float16 islands: %d of %d nodes stay float32; not quantized and still float32: %s",
        len(kept),
        len(named.graph.node),
        ", ".join(f"{name} ({reasons[name]})" for name in heavy) or "none",
    )
    return convert_float16(named, keep=kept)


def quantized_nodes(graph: GraphProto) -> set[str]:
    """Return the names of the nodes that are the INT8 part of a Q/DQ graph."""
    makers, constants = producers(graph), constant_names(graph)
    before_quantize = _before_quantize(graph)
    kept: set[str] = set()
    for node in graph.node:  # in order: an epilogue may follow another
        sources = [makers.get(name) for name in node.input if name and name not in constants]
        inside = [source is not None and source.name in kept for source in sources]
        leads_on = node.name in before_quantize
        if (
            node.op_type in (QUANTIZE, DEQUANTIZE)
            or _is_quantized(node, sources)
            or (node.op_type in EPILOGUE and any(inside) and (all(inside) or leads_on))
            or (node.op_type in MOVES and all(inside) and leads_on)
        ):
            kept.add(node.name)
    return kept


def _is_quantized(node: NodeProto, sources: list[NodeProto | None]) -> bool:
    dequantized = [source is not None and source.op_type == DEQUANTIZE for source in sources]
    if node.op_type in PRODUCTS:
        return len(dequantized) > 1 and all(dequantized[:2])
    return node.op_type in POOLS and dequantized[:1] == [True]


def _before_quantize(graph: GraphProto) -> set[str]:
    """Return the nodes that reach a QuantizeLinear through epilogues and moves alone."""
    tensors = {node.input[0] for node in graph.node if node.op_type == QUANTIZE}
    nodes = upstream(graph, tensors, through=lambda n: n.op_type in EPILOGUE | MOVES)
    return {node.name for node in nodes}
