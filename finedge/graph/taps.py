"""A model's taps as outputs: the feature maps that `verify` and `explain` read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.walk import producers

if TYPE_CHECKING:
    import onnx

    from finedge.bundle import Tap


PREFIX = "tap/"


def with_taps(model: onnx.ModelProto, taps: Iterable[Tap]) -> onnx.ModelProto:
    """Return `model`, changed, with a float32 output `tap/NAME` for each tap.

    Of a tensor that the model quantizes, it is what the following nodes read: after Q/DQ.

    Raises:
        BundleError: the model has no tensor of a tap.
    """
    names, taps = tensors(model), tuple(taps)
    missing = [tap for tap in taps if tap.tensor not in names]
    if missing:
        raise BundleError(
            f"the model has no tensor {missing[0].tensor} (tap '{missing[0].name}')",
            fix="export again",
        )
    dequantized = _dequantized(model.graph)
    for tap in taps:
        tensor = dequantized.get(tap.tensor, tap.tensor)
        _add_output(model.graph, f"{PREFIX}{tap.name}", tensor)
    return model


def tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of all tensors that a node makes."""
    return set(producers(model.graph))


def _dequantized(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the tensors that are quantized: {tensor: the same after Q/DQ}."""
    quantized = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    return {
        quantized[node.input[0]]: node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }


def _add_output(graph: onnx.GraphProto, name: str, tensor: str) -> None:
    from onnx import TensorProto, helper

    if name == tensor:
        tensor = _rename(graph, tensor)
    # Through a node: the tensor may be an output already, or another tap's, or float16.
    cast = helper.make_node("Cast", [tensor], [name], name=f"show {name}", to=TensorProto.FLOAT)
    graph.node.append(cast)
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _rename(graph: onnx.GraphProto, tensor: str) -> str:
    """Give an inner tensor another name and return it."""
    new = f"{tensor}/inside"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if n == tensor else n for n in names]
    for info in graph.value_info:
        info.name = new if info.name == tensor else info.name
    return new
