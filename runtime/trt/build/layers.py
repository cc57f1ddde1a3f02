"""The layers of an engine, their precisions, and the ONNX nodes that they came from.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finedge.errors import FinedgeError
from finedge.runtime.trt.build.roles import ARITHMETIC, Role, operations_of, role_of

UNKNOWN: Literal["unknown"] = "unknown"
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
_COUNT_NAMES = {"plugin_layers": "plugin layers", "reformats": "reformats"}
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(
    r"Name: (.*?), LayerType: (.*?), Inputs: \[(.*?)\], Constants: \[(.*?)\], "
    r"Outputs: \[(.*?)\], TacticName: (.*?), StreamId: .*?, Metadata: (.*)$"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\], .*?Datatype: (\w+)")


@dataclass(frozen=True)
class LayerTensor:
    """A tensor that a layer reads or writes.

    `shape` has -1 where a size is open. `dtype` is fp32, fp16, bf16, fp8, fp4, e8m0 (a scale of
    8 bits), int4, int8, uint8, int32, int64, bool or unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's name.
        kind: its layer type as TensorRT writes it, e.g. correlation, gemm, kgen (a generated
            kernel), CaskConvolution.
        inputs: the activations it reads, the main one first.
        outputs: what it writes.
        constants: weights, biases and scales.
        tactic: the kernel's name; "" where TensorRT gives none.
        onnx: the names of the ONNX nodes it computes, without the calls they were inside of.
    """

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    tactic: str
    onnx: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The dtype of the main operand that it reads; "" for a layer without tensors.

        Where TensorRT does not report that dtype, it is the dtype of the weights. A softmax is fp16
        if it reads or writes fp16: the kernel contains the Cast where the convolution before it
        writes float32.
        """
        tensors = (*self.inputs[:1], *self.constants[:1], *self.outputs[:1])
        if self.role == "softmax" and "fp16" in {t.dtype for t in (*self.inputs, *self.outputs)}:
            return "fp16"
        return next((t.dtype for t in tensors if t.dtype != UNKNOWN), UNKNOWN if tensors else "")

    @property
    def role(self) -> Role:
        """Its purpose, as far as its type and its kernel's name tell; else "unknown"."""
        return role_of(self.kind, name=self.name, tactic=self.tactic)

    @property
    def operations(self) -> tuple[str, ...]:
        """The steps of a generated kernel, e.g. (Cast, Tran, Mul, Add).

        The last is Etc where TensorRT cut the list.
        """
        return operations_of(self.name, self.tactic)


@dataclass(frozen=True)
class LayerReport:
    """All layers of an engine in the order they run; `source` is where the list comes from."""

    layers: tuple[Layer, ...]
    source: Literal["build log", "inspector"]

    def of(self, *roles: Role) -> tuple[Layer, ...]:
        """Return the layers with one of these roles."""
        return tuple(layer for layer in self.layers if layer.role in roles)

    def float_islands(self) -> tuple[Layer, ...]:
        """Return the layers that compute in float in an engine that has INT8 layers.

        These are convolutions, matmuls, softmaxes and fused attention.
        """
        arithmetic = self.of(*ARITHMETIC)
        has_int8 = any(layer.precision == "int8" for layer in arithmetic)
        return tuple(layer for layer in arithmetic if has_int8 and layer.precision != "int8")

    def summary(self) -> dict[str, Any]:
        """Return counts, and the float islands by their ONNX nodes, as plain data."""
        roles = {role: self.of(role) for role in ARITHMETIC}
        return {
            "source": self.source,
            "layers": len(self.layers),
            "by_kind": _by_kind(self.layers),
            "unknown_kinds": _by_kind(self.of(UNKNOWN)),
            "precisions": {
                role: dict(Counter(layer.precision for layer in layers))
                for role, layers in roles.items()
                if layers
            },
            "int8_convolutions": sum(layer.precision == "int8" for layer in roles["convolution"]),
            "fused_attention": len(roles["attention"]),
            "unfused_softmax": len(roles["softmax"]),
            "plugin_layers": len(self.of("plugin")),
            "reformats": len(self.of("reformat")),
            "float_islands": [
                {"precision": layer.precision, "role": layer.role, "onnx": list(layer.onnx)}
                for layer in self.float_islands()
            ],
        }

    def describe(self) -> str:
        """Return a short table to print: precisions per role, reformats, islands, unknown types."""
        counts = self.summary()
        rows = [("layers", f"{counts['layers']} ({self.source})")]
        for role, precisions in counts["precisions"].items():
            rows.append((role, ", ".join(f"{n} {dtype}" for dtype, n in precisions.items())))
        rows += [(name, str(counts[key])) for key, name in _COUNT_NAMES.items()]
        for layer in self.of(UNKNOWN):
            dtype, nodes = layer.precision or UNKNOWN, ", ".join(layer.onnx) or layer.name
            rows.append(("unknown type", f"'{layer.kind}' in {dtype}: {nodes}"))
        for island in counts["float_islands"]:
            nodes = ", ".join(island["onnx"]) or "no ONNX node named"
            rows.append(("float island", f"{island['role']} in {island['precision']}: {nodes}"))
        return "\n".join(f"{name:<14} {value}" for name, value in rows)

    def to_json(self) -> dict[str, Any]:
        """Return the summary and every layer as plain data."""
        layers = [
            {**asdict(layer), "role": layer.role, "precision": layer.precision}
            for layer in self.layers
        ]
        return {"summary": self.summary(), "layers": layers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerReport:
        """Read what `to_json` wrote; other keys are ignored."""
        return cls(tuple(_from_json(layer) for layer in data["layers"]), data["summary"]["source"])


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


def _from_json(record: Mapping[str, Any]) -> Layer:
    inputs, outputs, constants = (
        tuple(LayerTensor(t["name"], tuple(t["shape"]), t["dtype"]) for t in record[k])
        for k in ("inputs", "outputs", "constants")
    )
    return Layer(
        record["name"],
        record["kind"],
        inputs,
        outputs,
        constants,
        record["tactic"],
        tuple(record["onnx"]),
    )


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


def _by_kind(layers: Sequence[Layer]) -> dict[str, int]:
    return dict(Counter(layer.kind for layer in layers).most_common())


def _not_detailed(problem: str) -> FinedgeError:
    return FinedgeError(
        problem,
        expected="an engine built with ProfilingVerbosity.DETAILED, "
        "and for the log a logger that takes VERBOSE",
        fix="build again",
    )
