"""Reads the layers of an engine, and the ONNX nodes that they came from.

There are two sources. TensorRT for RTX writes the optimised layers into the verbose build log, also
where there is no GPU. The EngineInspector needs a deserialised engine, and so a GPU.
`from_inspector` reads the ten engines of TensorRT 8.x that NVIDIA publishes (trt-engine-explorer).
For later versions it was written from NVIDIA's documents (10.x: `Bindings`, one field
"Format/Datatype"; 11.x: `I/O Tensors`, two fields), and was not run on hardware. Both sources need
`ProfilingVerbosity.DETAILED` at the build.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from finedge.errors import FinedgeError
from finedge.runtime.trt.build.layers import UNKNOWN, Layer, LayerReport, LayerTensor

_TYPES = {
    "float": "fp32",
    "half": "fp16",
    "bfloat16": "bf16",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "uint8": "uint8",
    "int32": "int32",
    "int64": "int64",
    "int4": "int4",
    "fp4": "fp4",
    "e8m0": "e8m0",
    "bool": "bool",
}
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(
    r"Name: (.*?), LayerType: (.*?), Inputs: \[(.*?)\], Constants: \[(.*?)\], "
    r"Outputs: \[(.*?)\], TacticName: (.*?), StreamId: .*?, Metadata: (.*)$"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\], .*?Datatype: (\w+)")


def from_log(messages: Sequence[str]) -> LayerReport:
    """Read the layers from the messages of a verbose build; the last list counts.

    Raises:
        FinedgeError: no list of layers is in them, or it has a line of another form.
    """
    lists = [message for message in messages if message.startswith("Layers:")]
    if not lists:
        raise _not_detailed("the build log holds no list of layers")
    lines = lists[-1].split("\nI/O Tensors:")[0].splitlines()[1:]
    return LayerReport(tuple(_from_line(line) for line in lines if line), "build log")


def from_inspector(text: str) -> LayerReport:
    """Read the layers from the engine inspector's JSON, of TensorRT 10.x or 11.x.

    Args:
        text: what `EngineInspector.get_engine_information(LayerInformationFormat.JSON)` returned.

    Raises:
        FinedgeError: it is not such JSON, or it holds names only.
    """
    try:
        # `strict` would refuse the control characters that metadata may hold.
        layers = json.loads(text, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise FinedgeError(
            f"the engine inspector returned no layers: {error!r}",
            expected="JSON with a list 'Layers'",
        ) from error
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise _not_detailed("the engine inspector returned layer names only")
    return LayerReport(tuple(_from_record(layer) for layer in layers), "inspector")


def _from_line(line: str) -> Layer:
    match = _LINE.match(line)
    if not match:
        raise FinedgeError(
            f"a layer line of an unknown form: {line[:200]}",
            expected="Name, LayerType, Inputs, Constants, Outputs, TacticName, Metadata",
        )
    name, kind, inputs, constants, outputs, tactic, metadata = match.groups()
    return Layer(
        name,
        kind,
        _tensors(inputs),
        _tensors(outputs),
        _tensors(constants),
        tactic,
        _onnx_nodes(metadata),
    )


def _tensors(text: str) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(name, tuple(int(side) for side in sides.split(",") if side), _dtype(dtype))
        for name, sides, dtype in _TENSOR.findall(text)
    )


def _from_record(record: Mapping[str, Any]) -> Layer:
    # Absent for Myelin's layers, whose constants are listed as tensors.
    weights = record.get("Weights") or record.get("ConvWeights") or {}
    constants = [_from_fields(c) for c in record.get("Constants", ())]
    if "Type" in weights:
        constants.append(LayerTensor("weights", (), _dtype(weights["Type"])))
    inputs, outputs = (
        tuple(_from_fields(t) for t in record.get(key, ())) for key in ("Inputs", "Outputs")
    )
    return Layer(
        record["Name"],
        record.get("LayerType", ""),
        inputs,
        outputs,
        tuple(constants),
        record.get("TacticName", ""),
        _onnx_nodes(record["Metadata"]) if "Metadata" in record else _fused_nodes(record["Name"]),
    )


def _from_fields(record: Mapping[str, Any]) -> LayerTensor:
    dtype = record.get("Datatype") or record.get("DataType") or record.get("Format/Datatype", "")
    return LayerTensor(record.get("Name", ""), tuple(record.get("Dimensions", ())), _dtype(dtype))


def _dtype(text: str) -> str:
    """Return the dtype that a text names.

    Such as "Half" or "Channel major FP16 format where channel % 8 == 0". It is unknown for
    "N/A due to dynamic shapes".
    """
    words = re.findall(r"\w+", text.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), UNKNOWN)


def _onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Return the node names in metadata; TensorRT puts separators between them in JSON.

    "[ONNX Layer: a][ONNX Layer: inner | call (F)]" gives a and inner.
    """
    return tuple(dict.fromkeys(name.split(" | ")[0] for name in _ONNX.findall(metadata)))


def _fused_nodes(name: str) -> tuple[str, ...]:
    """Return the node names that a layer's name joins; before 8.6 TensorRT wrote no metadata.

    "conv1.weight + Conv_9 + PWN(Clip_13)" gives conv1.weight, Conv_9 and Clip_13. A copy that
    TensorRT inserted computes none.
    """
    if name.startswith(("Reformatting CopyNode", "{ForeignNode")):
        return ()
    names = re.split(r" \+ | \|\| ", name)
    return tuple(dict.fromkeys(re.sub(r"^PWN\((.*)\)$", r"\1", part) for part in names))


def _not_detailed(problem: str) -> FinedgeError:
    return FinedgeError(
        problem,
        expected="an engine built with ProfilingVerbosity.DETAILED, "
        "and for the log a logger that takes VERBOSE",
        fix="build again",
    )
