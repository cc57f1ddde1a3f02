"""The portable INT8 form: Q/DQ placed for TensorRT, and for everything else that reads ONNX.

Symmetric signed INT8, zero point 0, float32 scales. Quantized are the inputs of Conv, Gemm and pooling, and the skip input of
a residual Add, so that the Add joins the convolution in front of it, or the gate behind that. Not quantized are outputs (a
convolution is free to hand on float to an activation, to attention, or to a gate and the pooling in
it), biases, and attention. A tensor has one Q/DQ pair.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from finedge.calib.ranges import RangeTable
from finedge.calib.report import ATTENTION_STAYS, DYNAMIC_WEIGHT, QuantizationReport
from finedge.calib.weights import quantize_weight
from finedge.graph.inlining import inline
from finedge.graph.tags import NODE

POOLING = frozenset({"MaxPool", "GlobalAveragePool"})
SPATIAL = ({2, 3}, {-1, -2})


def quantize_for_tensorrt(
    model: onnx.ModelProto, table: RangeTable
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Return `model` with Q/DQ pairs, and what was placed; `model` is left as it is.

    Raises:
        FinedgeError: a tensor to quantize has no range in `table`.
    """
    copy = ir.from_proto(inline(model))
    placer = _Placer(copy.graph, table)
    depth = _convolutions_before(copy.graph)
    for node in list(copy.graph):
        if call := node.metadata_props.get(NODE):
            placer.stays_float[call] = ATTENTION_STAYS
        elif node.op_type in ("Conv", "Gemm"):
            placer.layer(node)
        elif node.op_type == "Add" and (skip := skip_input(node, depth)) is not None:
            placer.input(node, skip)
        elif (node.op_type in POOLING or _is_spatial_mean(node)) and not _is_layer_output(
            node.inputs[0]
        ):
            placer.input(node, 0)
    RemoveUnusedNodesPass()(copy)
    return ir.to_proto(copy), QuantizationReport(tuple(placer.int8), placer.stays_float)


def skip_input(node: ir.Node, depth: dict[ir.Value, int]) -> int | None:
    """Return which input of a residual Add is the skip: the one that is not the convolution to fuse with; None for other Adds.

    A gate behind the convolution belongs to its branch. Where both are convolutions (a downsampling shortcut) the branch with fewer of
    them is the skip. An Add that broadcasts, such as that of a gate's scores, is none.
    """
    branches = [i for i, value in enumerate(node.inputs) if _only_feeds_this_add(value)]
    if not branches or any(
        v is None or ir.convenience.get_const_tensor(v) is not None for v in node.inputs
    ):
        return None
    shapes = [_value(node, i).shape for i in (0, 1)]
    if None not in shapes and shapes[0] != shapes[1]:
        return None
    main = max(branches, key=lambda i: depth[_value(node, i)])
    return 1 - main


class _Placer:
    """Adds Q/DQ nodes to a graph and remembers which tensors have them."""

    def __init__(self, graph: ir.Graph, table: RangeTable) -> None:
        self.graph, self.table = graph, table
        self.dequantized: dict[ir.Value, ir.Value] = {}
        self.int8: list[str] = []
        self.stays_float: dict[str, str] = {}

    def layer(self, node: ir.Node) -> None:
        """Quantize activation and weight of a Conv or Gemm."""
        weight = ir.convenience.get_const_tensor(_value(node, 1))
        if weight is None:
            self.stays_float[_name(node)] = DYNAMIC_WEIGHT
            return
        self.input(node, 0)
        node.replace_input_with(1, self._weight(node, weight.numpy()))
        self.int8.append(_name(node))

    def input(self, node: ir.Node, index: int) -> None:
        """Put the Q/DQ pair of a tensor, made once, in front of one consumer."""
        value = _value(node, index)
        if value not in self.dequantized:
            self.dequantized[value] = self._pair(value)
        node.replace_input_with(index, self.dequantized[value])

    def _pair(self, value: ir.Value) -> ir.Value:
        name = value.name or ""
        scale = self._constant(f"{name}/scale", np.float32(self.table[name].scale))
        zero = self._constant(f"{name}/zero_point", np.int8(0))
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}/quantize")
        dequantize = ir.node(
            "DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}/dequantize"
        )
        producer = value.producer()
        assert (
            producer is not None
        )  # the only graph input is uint8, and normalised before the first layer
        self.graph.insert_after(producer, [quantize, dequantize])
        return _named(dequantize, quantize, name, value)

    def _weight(self, node: ir.Node, weight: NDArray[np.float32]) -> ir.Value:
        """Return the dequantized weight of a layer; a Gemm's is turned so that axis 0 is the output channel, as TensorRT asks."""
        value = _value(node, 1)
        turned = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
        if turned:
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
        result.name, result.shape, result.dtype = (
            f"{name}/dequantized",
            ir.Shape(weight.shape),
            ir.DataType.FLOAT,
        )
        self.dequantized[value] = result
        return result

    def _constant(self, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value


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


def _only_feeds_this_add(value: ir.Value | None) -> bool:
    return (
        value is not None
        and (_is_layer_output(value) or _is_gated(value))
        and len(value.uses()) == 1
        and not value.is_graph_output()
    )


def _is_layer_output(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "Conv"


def _is_gated(value: ir.Value | None) -> bool:
    """Tell whether a Mul made it, of a mask (out of a Sigmoid) and what a convolution, or the gate before, hands on."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Mul":
        return False
    return any(map(_is_mask, producer.inputs)) and any(
        _is_layer_output(f) or _is_gated(f) for f in producer.inputs
    )


def _is_mask(value: ir.Value | None) -> bool:
    """Tell whether a Sigmoid made it, at most reshaped behind it."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Reshape":
        return _is_mask(producer.inputs[0])
    return producer is not None and producer.op_type == "Sigmoid"


def _is_spatial_mean(node: ir.Node) -> bool:
    """Tell whether a ReduceMean is the global average pool that the exporter writes this way."""
    if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    return axes is not None and set(axes.numpy().tolist()) in SPATIAL


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None  # the first inputs of Conv, Gemm, Add and pooling are not optional
    return value


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type} -> {node.outputs[0].name}"
