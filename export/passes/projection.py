"""A 1x1 convolution as a linear map: read from a graph, or inserted into a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from finedge.export.passes.values import (
    add_initializer,
    constant_input,
    has_constant_inputs,
    input_of,
    used_once,
)


@dataclass(frozen=True)
class Projection:
    """y = weight x + bias at every position; weight [O, I, 1, 1], bias [O]."""

    source: ir.Value
    weight: NDArray[np.floating]
    bias: NDArray[np.floating]


def read_projection(value: ir.Value | None) -> Projection | None:
    """Read `value` as a 1x1 convolution; None for anything else.

    It has constant weights, stride 1, no padding and no groups, and one node reads it.
    """
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != "Conv":
        return None
    if not has_constant_inputs(node) or not used_once(value):
        return None
    weight, attributes = constant_input(node, 1), node.attributes
    is_projection = (
        weight.shape[2:] == (1, 1)
        and attributes.get_int("group", 1) == 1
        and set(attributes.get_ints("strides", [1])) == {1}
        and set(attributes.get_ints("pads", [0])) == {0}
    )
    if not is_projection:
        return None
    bias = constant_input(node, 2) if len(node.inputs) > 2 else None
    if bias is None:
        bias = np.zeros(len(weight), weight.dtype)
    return Projection(input_of(node, 0), weight, bias)


def insert_projection(
    graph: ir.Graph,
    source: ir.Value,
    *,
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    name: str,
    before: ir.Node,
) -> ir.Value:
    """Add a 1x1 convolution of `source` to the graph, before a node; return its output."""
    constants = [
        add_initializer(graph, f"{name}.{kind}", array)
        for kind, array in (("weight", weight), ("bias", bias))
    ]
    conv = ir.node("Conv", [source, *constants], {"kernel_shape": [1, 1]}, name=name)
    graph.insert_before(before, conv)
    result = conv.outputs[0]
    result.name = f"{name}.output"
    if source.shape is not None:
        result.shape = ir.Shape([source.shape[0], len(weight), *source.shape[2:]])
        result.type = source.type
    return result


def affine_of(norm: ir.Node) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Read a BatchNormalization in evaluation mode as (factor, shift) of each channel."""
    gamma, beta, mean, variance = (constant_input(norm, i) for i in (1, 2, 3, 4))
    epsilon = np.asarray(norm.attributes.get_float("epsilon", 1e-5), gamma.dtype)
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor
