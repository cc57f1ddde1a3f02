"""Writes into the attributes of our attention nodes what TensorRT does not pass to a plugin.

One tensor may be both key and value: the plugin sees two addresses, which may be two copies. And an
INT8 input comes without its scale.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from finedge.graph.attention import is_attention
from finedge.graph.edit import copied
from finedge.ops import CROSS_LAYER_ATTENTION as OP

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)


class QuantizedTensor(NamedTuple):
    """The name of an INT8 tensor and the size of one step."""

    name: str
    scale: float


def with_node_attributes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model whose plugin nodes have every attribute and read INT8 as INT8.

    `QuantizeLinear -> DequantizeLinear [-> Cast] -> plugin` becomes `QuantizeLinear -> plugin` with
    `q_scale` (`k_scale`, `v_scale`). The scale must be one stored number, and the zero point 0. The
    plugin then reads the same numbers in half the bytes, or a quarter. The nodes in between stay;
    TensorRT drops those that nothing reads. Absent attributes are written as 0, because the parser
    warns about each one that is missing.

    Args:
        model: the graph for TensorRT, functions inlined or deleted, after `float16_islands`; it
            stays as it is.
    """
    changed = copied(model)
    pairs = _quantized(changed.graph)
    for node in changed.graph.node:
        if is_attention(node):
            _write(node, pairs)
    return changed


def _write(node: onnx.NodeProto, pairs: dict[str, QuantizedTensor]) -> None:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for place, (formal, name) in enumerate(zip(OP.inputs, node.input, strict=True)):
        attributes.setdefault(f"{formal}_scale", 0.0)
        if name in pairs:
            node.input[place], attributes[f"{formal}_scale"] = pairs[name]
    attributes["shared"] = int(node.input[1] == node.input[2])
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    log.debug("%s: reads %s", node.name, ", ".join(node.input))


def _quantized(graph: onnx.GraphProto) -> dict[str, QuantizedTensor]:
    """Return, by name, each tensor that is a dequantized INT8 tensor, cast or not."""
    from onnx import TensorProto, numpy_helper

    stored = {t.name: t for t in graph.initializer}
    quantized = {
        name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.output
    }
    pairs: dict[str, QuantizedTensor] = {}
    for node in graph.node:  # in order: a Cast comes after its DequantizeLinear
        if node.op_type == "Cast" and node.input[0] in pairs:
            pairs[node.output[0]] = pairs[node.input[0]]
        if node.op_type != "DequantizeLinear" or node.input[0] not in quantized:
            continue
        scale, zero = (stored.get(name) for name in node.input[1:3])
        if scale is None or zero is None or zero.data_type != TensorProto.INT8:
            continue
        values = numpy_helper.to_array(scale)
        if values.size == 1 and not numpy_helper.to_array(zero).any():
            pairs[node.output[0]] = QuantizedTensor(node.input[0], float(values.reshape(-1)[0]))
    return pairs
