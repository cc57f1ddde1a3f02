"""What `explain` reads from a float ONNX file: attention nodes and the last linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from finedge.errors import BundleError
from finedge.graph.attention import AttentionNode, is_attention, read_attention
from finedge.graph.constants import constant_value
from finedge.graph.walk import producers
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN

# Between the linear layer and the output there may be these nodes, and the Subs of a log softmax
# that is written out.
PASSED = frozenset({"Identity", "Add", "LogSoftmax"})


@dataclass(frozen=True)
class Linear:
    """logits = weight x + bias; weight [classes, inputs], bias [classes]."""

    weight: NDArray[np.floating]
    bias: NDArray[np.floating]


class Graph:
    """A model's main graph, searchable by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.inputs = tuple(value.name for value in model.graph.input)
        self.nodes = tuple(model.graph.node)  # in running order
        self._producers = producers(model.graph)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of an initializer or a Constant node; None for anything computed."""
        if tensor in self._constants:
            return onnx.numpy_helper.to_array(self._constants[tensor])
        node = self._producers.get(tensor)
        if node is None or node.op_type != "Constant":
            return None
        value: NDArray[Any] | None = constant_value(node)
        return value

    def attention(self, tensor: str) -> AttentionNode:
        """Return what the attention op that makes a tensor compares.

        An op that absorbed its projections is followed by a 1x1 convolution.

        Raises:
            BundleError: no CrossLayerAttention makes this tensor.
        """
        node = self._producers.get(tensor)
        while node is not None and (node.op_type == "Identity" or _is_projection(node)):
            node = self._producers.get(node.input[0])
        if node is None or not is_attention(node):
            maker = "nothing" if node is None else node.op_type
            raise BundleError(
                f"tensor {tensor} is made by {maker}",
                expected=f"{DOMAIN}.{CROSS_LAYER_ATTENTION.name}",
                fix="export again",
            )
        return read_attention(node, {})

    def linear(self, output: str) -> Linear:
        """Return the linear layer that makes an output, a Gemm or a MatMul with constant weights.

        Raises:
            BundleError: something else makes it.
        """
        node, bias = self._producers.get(output), None
        while node is not None and (node.op_type in PASSED or self._is_of_log_softmax(node)):
            computed = next((name for name in node.input if self.constant(name) is None), "")
            bias = next((c for c in map(self.constant, node.input) if c is not None), bias)
            node = self._producers.get(computed)
        weight = None
        if node is not None and node.op_type in ("Gemm", "MatMul"):
            weight = self.constant(node.input[1])
        if node is None or weight is None:
            raise BundleError(
                f"output {output} is not a linear layer of features",
                expected="Gemm or MatMul with constant weights",
                fix="export again",
            )
        if not attributes(node).get("transB", 0):
            weight = weight.T
        if len(node.input) > 2:
            bias = self.constant(node.input[2])
        return Linear(weight, np.zeros(len(weight), weight.dtype) if bias is None else bias)

    def _is_of_log_softmax(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Sub" and all(self.constant(name) is None for name in node.input)


def _is_projection(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and set(attributes(node).get("kernel_shape", ())) == {1}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as plain values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
