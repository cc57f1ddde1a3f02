"""Where an INT8 file in the form for TensorRT has its Q/DQ pairs, read from the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from finedge.calib.ranges.calibration_table import INT8_MAX
from finedge.graph.patterns import is_layer
from finedge.graph.walk import producers

Edge = tuple[str, int]  # the name of a node, and the index of one of its inputs


@dataclass(frozen=True)
class Placement:
    """The quantized places of a file; its node names are those of the float model.

    Attributes:
        weights: the layers with an INT8 weight.
        edges: the quantized tensor of each input that reads one.
        amax: the largest magnitude of each quantized tensor: 127 steps.
    """

    weights: frozenset[str]
    edges: Mapping[Edge, str]
    amax: Mapping[str, float]


def placement_of(model: onnx.ModelProto) -> Placement:
    """Return the places of an INT8 file in the form for TensorRT."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = producers(model.graph)
    weights, edges, amax = set(), {}, {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            dequantize = makers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            if dequantize.input[0] in stored:
                assert is_layer(node)
                weights.add(node.name)
                continue
            quantize = makers[dequantize.input[0]]
            tensor = quantize.input[0]
            edges[node.name, index] = tensor
            amax[tensor] = INT8_MAX * float(numpy_helper.to_array(stored[quantize.input[1]]))
    return Placement(frozenset(weights), edges, amax)
