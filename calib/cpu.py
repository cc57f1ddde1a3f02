"""The CPU form: the same ranges placed so that ONNX Runtime on x86 fuses every convolution into QLinearConv.

Functions are inlined. Activations are unsigned and asymmetric (a ReLU then folds into the zero point), weights signed and symmetric
per output channel, outputs quantized too. Attention and the last layer's logits stay in float.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx.inliner import inline_local_functions
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from finedge.calib.placement import ATTENTION_STAYS, DYNAMIC_WEIGHT, NORMALISES, Placement, is_attention
from finedge.calib.ranges import RangeTable

QUANTIZED_OPS = ["Conv", "Gemm", "Relu", "Clip", "Add", "Concat", "MaxPool", "GlobalAveragePool", "Reshape", "Flatten", "Squeeze"]


def place_cpu(model: onnx.ModelProto, table: RangeTable) -> tuple[onnx.ModelProto, Placement]:
    """Return `model`, functions inlined, quantized for ONNX Runtime on x86, and what was placed; `model` is left as it is.

    Raises:
        FinedgeError: the output of a Conv or Gemm has no range in `table`.
    """
    inlined, attention = inline(model)
    for layer in _layers(inlined.graph):
        table[layer.output[0]]  # raises: the quantizer would take an empty choice of nodes for all of them
    calibrated = [n for n in inlined.graph.node if n.output[0] in table.ranges]
    stays_float = {
        **{n.name: DYNAMIC_WEIGHT for n in _layers(inlined.graph) if n.input[1] not in _initializers(inlined.graph)},
        **dict.fromkeys(_before_first_layer(inlined.graph).intersection(n.name for n in calibrated), NORMALISES),
        **dict.fromkeys(attention, ATTENTION_STAYS),
    }
    chosen = [n.name for n in calibrated if n.op_type in QUANTIZED_OPS and n.name not in stays_float]
    quantizer = QDQQuantizer(
        inlined,
        per_channel=True,
        reduce_range=False,  # CPUs without VNNI: the runtime cuts the weights to 7 bits at load
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range={name: TensorData(lowest=np.float32(r.low), highest=np.float32(r.high)) for name, r in table.ranges.items()},
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=QUANTIZED_OPS,
        # 256 levels of logits would tie: the last layer hands on float.
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )
    layers = tuple(n.name for n in _layers(inlined.graph) if n.name in chosen)
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # the quantizer appends its nodes
    return quantizer.model.model, Placement(layers, stays_float)


def inline(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return `model` without local functions and with unique node names, and the names of the nodes that were attention."""
    calls = [n for n in model.graph.node if is_attention(n.domain)]
    inlined = inline_local_functions(model)
    seen = Counter({"": 1})
    for node in inlined.graph.node:
        seen[node.name] += 1
        if seen[node.name] > 1:  # the bodies of two calls repeat their names
            node.name = f"{node.name or node.op_type}#{seen[node.name]}"
    standard = [o for o in inlined.opset_import if not is_attention(o.domain)]
    del inlined.opset_import[:]
    inlined.opset_import.extend(standard)
    attention = [name for call in calls for name in _between(inlined.graph, list(call.output), set(call.input))]
    return inlined, attention


def _between(graph: onnx.GraphProto, ends: list[str], starts: set[str]) -> list[str]:
    """Return the nodes that compute `ends` from `starts`."""
    producer = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    while ends:
        node = producer.get(ends.pop())
        if node is not None and node.name not in found:
            found[node.name] = None
            ends += [name for name in node.input if name not in starts]
    return list(found)


def _before_first_layer(graph: onnx.GraphProto) -> set[str]:
    """Return the nodes without a Conv or Gemm upstream: they turn pixels into the first layer's input."""
    behind: set[str] = set()
    names = set()
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") or behind.intersection(node.input):
            behind.update(node.output)
        else:
            names.add(node.name)
    return names


def _layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [n for n in graph.node if n.op_type in ("Conv", "Gemm")]


def _initializers(graph: onnx.GraphProto) -> set[str]:
    return {i.name for i in graph.initializer}
