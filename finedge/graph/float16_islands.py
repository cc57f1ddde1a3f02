"""float16 islands in a portable INT8 file: what is not quantized computes in float16, the INT8 part stays as TensorRT fuses it.

Strongly typed TensorRT runs what lies between DequantizeLinear and QuantizeLinear as the file says: float32. Attention is then two
float32 products and a softmax; in float16 it is one fused kernel (head sizes up to 256). Scales stay float32: in float16 they turn subnormal.
"""

from __future__ import annotations

import logging

from onnx import GraphProto, ModelProto, NodeProto

from finedge.graph.float16 import convert_float16, with_names
from finedge.graph.keep_float32 import constant_names, is_heavy, keep_float32

log = logging.getLogger(__name__)

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
POOLS = frozenset({"MaxPool", "GlobalAveragePool", "AveragePool", "ReduceMean"})
# What TensorRT runs inside the kernel of the convolution in front of it, on the way to the next QuantizeLinear.
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
# What moves numbers without changing them.
CARRY = frozenset({"Concat", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def fp16_islands(model: ModelProto) -> ModelProto:
    """Return a Q/DQ model whose other nodes compute in float16, between Casts; graph inputs and outputs keep their types.

    float32 stay: Q/DQ nodes with their scales, quantized layers and poolings, element by element operations behind such a layer that lead to
    a QuantizeLinear or read nothing else, and what float16 would break (`finedge.graph.keep_float32`; its layers and softmaxes are logged).

    Args:
        model: the portable INT8 file, with its functions, with them inlined, or with their bodies taken away for a plugin.
    """
    named = with_names(model)
    breaks = keep_float32(named.graph)
    kept = quantized(named.graph) | breaks.keys()
    heavy = [
        f"{n.name} ({breaks[n.name]})" for n in named.graph.node if n.name in breaks and is_heavy(n)
    ]
    log.info(
        "fp16 islands: %d of %d nodes stay float32; not quantized and still float32: %s",
        len(kept),
        len(named.graph.node),
        ", ".join(heavy) or "none",
    )
    return convert_float16(named, keep=kept)


def quantized(graph: GraphProto) -> set[str]:
    """Return the names of the nodes that are the INT8 part of a Q/DQ graph."""
    maker = {name: node for node in graph.node for name in node.output}
    towards, constants = _towards_quantize(graph), constant_names(graph)
    kept: set[str] = set()
    for node in graph.node:  # in order: an epilogue may follow another
        sources = [maker.get(name) for name in node.input if name and name not in constants]
        inside = [source is not None and source.name in kept for source in sources]
        if (
            node.op_type in (QUANTIZE, DEQUANTIZE)
            or _is_quantized(node, sources)
            or (node.op_type in EPILOGUE and any(inside) and (all(inside) or node.name in towards))
            or (node.op_type in CARRY and all(inside) and node.name in towards)
        ):
            kept.add(node.name)
    return kept


def _is_quantized(node: NodeProto, sources: list[NodeProto | None]) -> bool:
    dequantized = [source is not None and source.op_type == DEQUANTIZE for source in sources]
    if node.op_type in LAYERS:
        return len(dequantized) > 1 and all(dequantized[:2])
    return node.op_type in POOLS and dequantized[:1] == [True]


def _towards_quantize(graph: GraphProto) -> set[str]:
    """Return the nodes from which a QuantizeLinear is reached through epilogues and moves alone."""
    leading = {n.input[0] for n in graph.node if n.op_type == QUANTIZE}
    names = set()
    for node in reversed(graph.node):
        if node.op_type in EPILOGUE | CARRY and leading.intersection(node.output):
            leading.update(node.input)
            names.add(node.name)
    return names
