"""Keeps a layer in float that ONNX Runtime would put into INT8 again.

ONNX Runtime quantizes the float weight of a Conv or Gemm while it loads a file, with one scale for
the whole weight, where a DequantizeLinear with one scale comes before the layer and a
QuantizeLinear follows, at most with a ReLU or Clip between (`weight_bias_quantization.cc`, seen in
1.31.1). A layer that was restored to float would then lose more than in INT8 with a scale for each
channel of the weight. With one scale for each channel before the layer, it is left alone. All these
scales are equal, so no number changes.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from finedge.graph.patterns import layers
from finedge.graph.walk import producers


def protect_float_layers(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Give each layer of `names` that reads a dequantized tensor a DequantizeLinear of its own.

    It has a scale for each channel. New nodes are appended: the caller sorts them.
    """
    made = producers(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for layer in (node for node in layers(graph) if node.name in names):
        before = made.get(layer.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            continue
        channels = _channels(layer, constants)
        inputs = [before.input[0]]
        for source, kind in zip(before.input[1:], ("scale", "zero_point"), strict=False):
            name = f"{layer.name}/{kind}_by_channel"
            value: NDArray[np.generic] = numpy_helper.to_array(constants[source])
            graph.initializer.append(numpy_helper.from_array(np.full(channels, value), name))
            inputs.append(name)
        output = f"{layer.name}/dequantized"
        node = helper.make_node(
            "DequantizeLinear", inputs, [output], name=f"{layer.name}/dequantize", axis=1
        )
        graph.node.append(node)
        layer.input[0] = output


def _channels(layer: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    """Return the number of channels that a Conv or Gemm reads."""
    sizes = constants[layer.input[1]].dims
    attributes = {a.name: a.i for a in layer.attribute}
    if layer.op_type == "Conv":
        return int(sizes[1]) * int(attributes.get("group", 1))
    return int(sizes[1] if attributes.get("transB", 0) else sizes[0])
