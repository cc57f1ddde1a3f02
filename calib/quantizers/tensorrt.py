"""INT8 for TensorRT, and for everything else that reads ONNX: the portable form.

Symmetric signed INT8, zero point 0, float32 scales. Quantized are the inputs of Conv, Gemm and
pooling, and the skip input of a residual Add: so the Add joins the convolution before it, or the
gate after that. A tensor has one Q/DQ pair.

Not quantized are biases, attention, and outputs: a convolution is free to make float for an
activation, for attention, or for a gate and the pooling in it.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from finedge.calib.quantizers.report import (
    ATTENTION_STAYS,
    DYNAMIC_WEIGHT,
    RESTORED,
    QuantizationReport,
    quantize_weight,
)
from finedge.calib.ranges.calibration_table import CalibrationTable
from finedge.export.passes.values import add_initializer, input_of, used_once
from finedge.graph.inlining import inline
from finedge.graph.patterns import QUANTIZED_LAYERS, gated_tensors
from finedge.graph.tags import NODE

POOLING = frozenset({"MaxPool", "GlobalAveragePool"})
SPATIAL = ({2, 3}, {-1, -2})


def quantize_for_tensorrt(
    model: onnx.ModelProto, table: CalibrationTable, *, keep_float: Set[str] = frozenset()
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Return `model` with Q/DQ pairs, and the report; `model` is not changed.

    Args:
        model: the float model.
        table: the ranges of its tensors.
        keep_float: names of Conv and Gemm nodes that stay in float; they are those of the inlined
            model.

    Raises:
        FinedgeError: a tensor to quantize has no range in `table`.
    """
    inlined = inline(model)
    copy = ir.from_proto(inlined)
    quantizer = _Quantizer(copy.graph, table)
    gates, depth = gated_tensors(inlined.graph), _convolutions_before(copy.graph)
    for node in list(copy.graph):
        if call := node.metadata_props.get(NODE):
            quantizer.stays_float[call] = ATTENTION_STAYS
        elif node.name in keep_float:
            quantizer.stays_float[_name(node)] = RESTORED
        elif node.op_type in QUANTIZED_LAYERS:
            quantizer.quantize_layer(node)
        elif node.op_type == "Add" and (skip := skip_input(node, depth, gates=gates)) is not None:
            quantizer.quantize_input(node, skip)
        elif _is_pooling(node) and not _is_convolution(node.inputs[0]):
            quantizer.quantize_input(node, 0)
    RemoveUnusedNodesPass()(copy)
    report = QuantizationReport(tuple(quantizer.int8), quantizer.stays_float)
    return ir.to_proto(copy), report


def skip_input(node: ir.Node, depth: dict[ir.Value, int], *, gates: Set[str]) -> int | None:
    """Return which input of a residual Add is the skip: the one not to fuse with a convolution.

    None for other Adds; one that broadcasts, such as that of a gate's scores, is no residual Add.

    A gate after the convolution belongs to its branch. Where both inputs are convolutions (a
    downsampling shortcut), the branch with fewer of them is the skip.

    Args:
        node: an Add.
        depth: the number of convolutions before each value.
        gates: the names of the tensors that gates make.
    """
    branches = [i for i, value in enumerate(node.inputs) if _is_branch(value, gates)]
    constants = [v is None or ir.convenience.get_const_tensor(v) is not None for v in node.inputs]
    if not branches or any(constants):
        return None
    shapes = [input_of(node, i).shape for i in (0, 1)]
    if None not in shapes and shapes[0] != shapes[1]:
        return None
    main = max(branches, key=lambda i: depth[input_of(node, i)])
    return 1 - main


class _Quantizer:
    """Adds Q/DQ nodes to a graph and remembers which tensors have them."""

    def __init__(self, graph: ir.Graph, table: CalibrationTable) -> None:
        self.graph, self.table = graph, table
        self.dequantized: dict[ir.Value, ir.Value] = {}
        self.int8: list[str] = []
        self.stays_float: dict[str, str] = {}

    def quantize_layer(self, node: ir.Node) -> None:
        """Quantize activation and weight of a Conv or Gemm."""
        weight = ir.convenience.get_const_tensor(input_of(node, 1))
        if weight is None:
            self.stays_float[_name(node)] = DYNAMIC_WEIGHT
            return
        self.quantize_input(node, 0)
        node.replace_input_with(1, self._weight(node, weight.numpy()))
        self.int8.append(_name(node))

    def quantize_input(self, node: ir.Node, index: int) -> None:
        """Put the one Q/DQ pair of a tensor before a consumer."""
        value = input_of(node, index)
        if value not in self.dequantized:
            self.dequantized[value] = self._pair(value)
        node.replace_input_with(index, self.dequantized[value])

    def _pair(self, value: ir.Value) -> ir.Value:
        name = value.name or ""
        scale = self._constant(f"{name}/scale", np.float32(self.table[name].scale))
        zero = self._constant(f"{name}/zero_point", np.int8(0))
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}/quantize")
        inputs = [quantize.outputs[0], scale, zero]
        dequantize = ir.node("DequantizeLinear", inputs, name=f"{name}/dequantize")
        producer = value.producer()
        # The only graph input is uint8, and normalised before the first layer.
        assert producer is not None
        self.graph.insert_after(producer, [quantize, dequantize])
        return _named(dequantize, quantize, name, value)

    def _weight(self, node: ir.Node, weight: NDArray[np.float32]) -> ir.Value:
        """Return the dequantized weight of a layer.

        A Gemm's is transposed so that axis 0 is the output channel, as TensorRT asks.
        """
        value = input_of(node, 1)
        if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
            weight = weight.T
            node.attributes["transB"] = ir.AttrInt64("transB", 1)
        if value in self.dequantized:
            return self.dequantized[value]
        name = value.name or ""
        values, scales = quantize_weight(weight)
        inputs = [
            self._constant(f"{name}/int8", values),
            self._constant(f"{name}/scale", scales),
            self._constant(f"{name}/zero_point", np.zeros(len(scales), np.int8)),
        ]
        dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}/dequantize")
        self.graph.insert_before(self.graph[0], dequantize)
        result = dequantize.outputs[0]
        result.name, result.shape = f"{name}/dequantized", ir.Shape(weight.shape)
        result.dtype = ir.DataType.FLOAT
        self.dequantized[value] = result
        return result

    def _constant(self, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
        return add_initializer(self.graph, name, np.asarray(array))


def _named(dequantize: ir.Node, quantize: ir.Node, name: str, like: ir.Value) -> ir.Value:
    inner, outer = quantize.outputs[0], dequantize.outputs[0]
    inner.name, inner.shape, inner.dtype = f"{name}/quantized", like.shape, ir.DataType.INT8
    outer.name, outer.shape, outer.dtype = f"{name}/dequantized", like.shape, ir.DataType.FLOAT
    return outer


def _convolutions_before(graph: ir.Graph) -> dict[ir.Value, int]:
    """Return the largest number of convolutions on a way from the graph's input to each value."""
    depth: dict[ir.Value, int] = {}
    for node in graph:
        before = max((depth.get(v, 0) for v in node.inputs if v is not None), default=0)
        depth.update(dict.fromkeys(node.outputs, before + (node.op_type == "Conv")))
    return depth


def _is_branch(value: ir.Value | None, gates: Set[str]) -> bool:
    """Tell whether a convolution or its gate makes a value, and one Add alone reads it."""
    if value is None or not used_once(value):
        return False
    return _is_convolution(value) or value.name in gates


def _is_convolution(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "Conv"


def _is_pooling(node: ir.Node) -> bool:
    return node.op_type in POOLING or _is_spatial_mean(node)


def _is_spatial_mean(node: ir.Node) -> bool:
    """Tell whether a ReduceMean is the global average pool that the exporter writes this way."""
    if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    return axes is not None and set(axes.numpy().tolist()) in SPATIAL


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type} -> {node.outputs[0].name}"
