"""What an engine is made of: its layers, their precisions, and the ONNX nodes they came from.

Two sources. TensorRT for RTX writes the optimised layers into the verbose build log, also where there is no GPU. The EngineInspector
needs a deserialised engine, so a GPU; `from_inspector` was written from NVIDIA's documents (10.x: `Bindings`, one field
"Format/Datatype"; 11.x: `I/O Tensors`, two fields) and was not run on hardware. Both need `ProfilingVerbosity.DETAILED` at the build.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from finedge.errors import FinedgeError

Role = Literal["convolution", "matmul", "softmax", "attention", "plugin", "reformat", "other"]
ARITHMETIC: tuple[Role, ...] = ("convolution", "matmul", "softmax", "attention")
UNKNOWN = "unknown"

# Words of a layer type, lower case, as TensorRT or its Myelin compiler writes it; the first that fits. What a generated kernel (kgen)
# does is told by its tactic.
_ROLES: tuple[tuple[str, Role], ...] = (
    ("correlation", "convolution"),
    ("convolution", "convolution"),
    ("gemm", "matmul"),
    ("matrixmultiply", "matmul"),
    ("softmax", "softmax"),
    ("attention", "attention"),
    ("custom_layer", "plugin"),
    ("plugin", "plugin"),
    ("reformat", "reformat"),
)
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
    "bool": "bool",
}
_MOVES = frozenset({"Tran", "Resh", "Move", "Copy", "Cast"})
_OPERATIONS = re.compile(r"__myl_([A-Za-z]+)_")
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(
    r"Name: (.*?), LayerType: (.*?), Inputs: \[(.*?)\], Constants: \[(.*?)\], Outputs: \[(.*?)\], TacticName: (.*?), StreamId: .*?, Metadata: (.*)$"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\], .*?Datatype: (\w+)")


@dataclass(frozen=True)
class Tensor:
    """What a layer reads or writes: `shape` has -1 where it is free; `dtype` is fp32, fp16, bf16, fp8, int8, uint8, int32, int64, bool or unknown."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's name.
        kind: its layer type as TensorRT writes it, e.g. correlation, gemm, kgen (a generated kernel), CaskConvolution.
        inputs: the activations it reads, the main one first.
        outputs: what it writes.
        constants: weights, biases and scales.
        tactic: the kernel's name; "" where TensorRT gives none.
        onnx: the names of the ONNX nodes it computes, without the calls they were inside of.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    tactic: str
    onnx: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The dtype of its main operand, as it reads it, or of the weights where TensorRT does not tell it; "" of a layer without tensors.

        A softmax is fp16 if it reads or writes that: the kernel has the Cast inside where the convolution before it hands on float32.
        """
        tensors = (*self.inputs[:1], *self.constants[:1], *self.outputs[:1])
        if self.role == "softmax" and "fp16" in {t.dtype for t in (*self.inputs, *self.outputs)}:
            return "fp16"
        return next((t.dtype for t in tensors if t.dtype != UNKNOWN), UNKNOWN if tensors else "")

    @property
    def role(self) -> Role:
        """What it does, as far as its type and its kernel's name tell."""
        if "mha" in self.tactic.lower():
            return "attention"
        kind = self.kind.lower()
        return next((role for word, role in _ROLES if word in kind), None) or _role_of_kernel(
            self.operations
        )

    @property
    def operations(self) -> tuple[str, ...]:
        """The steps of a generated kernel, e.g. (Cast, Tran, Mul, Add); the last is Etc where TensorRT cut the list."""
        found = _OPERATIONS.search(self.tactic or self.name)
        return tuple(re.findall(r"[A-Z][a-z0-9]*", found[1])) if found else ()


@dataclass(frozen=True)
class LayerReport:
    """All layers of an engine in the order they run in; `source` is where the list comes from."""

    layers: tuple[Layer, ...]
    source: Literal["build log", "inspector"]

    def of(self, *roles: Role) -> tuple[Layer, ...]:
        """Return the layers with one of these roles."""
        return tuple(layer for layer in self.layers if layer.role in roles)

    def float_islands(self) -> tuple[Layer, ...]:
        """Return what computes in float in an engine that has INT8 layers: convolutions, matmuls, softmaxes, fused attention."""
        arithmetic = self.of(*ARITHMETIC)
        has_int8 = any(layer.precision == "int8" for layer in arithmetic)
        return tuple(layer for layer in arithmetic if has_int8 and layer.precision != "int8")

    def summary(self) -> dict[str, Any]:
        """Return counts, and the float islands by their ONNX nodes, as plain data."""
        roles = {role: self.of(role) for role in ARITHMETIC}
        return {
            "source": self.source,
            "layers": len(self.layers),
            "by_kind": dict(Counter(layer.kind for layer in self.layers).most_common()),
            "precisions": {
                role: dict(Counter(layer.precision for layer in found))
                for role, found in roles.items()
                if found
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
        """Return a short table for people: precisions a role, attention, reformats, float islands."""
        counts = self.summary()
        rows = [("layers", f"{counts['layers']} ({self.source})")]
        rows += [
            (role, ", ".join(f"{n} {dtype}" for dtype, n in found.items()))
            for role, found in counts["precisions"].items()
        ]
        rows += [
            (name.replace("_", " "), str(counts[name])) for name in ("plugin_layers", "reformats")
        ]
        rows += [
            (
                "float island",
                f"{i['role']} in {i['precision']}: {', '.join(i['onnx']) or 'no ONNX node named'}",
            )
            for i in counts["float_islands"]
        ]
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
        """Read what `to_json` wrote; keys of others beside its own are ignored."""
        return cls(tuple(_from_json(layer) for layer in data["layers"]), data["summary"]["source"])


def from_log(messages: Sequence[str]) -> LayerReport:
    """Read the layers from the messages of a verbose RTX build; the last list counts where there are several.

    Raises:
        FinedgeError: no list of layers is in them, or it has a line that is not understood.
    """
    listed = [m for m in messages if m.startswith("Layers:")]
    if not listed:
        raise _not_detailed("the build log holds no list of layers")
    lines = listed[-1].split("\nI/O Tensors:")[0].splitlines()[1:]
    return LayerReport(tuple(_from_line(line) for line in lines if line), "build log")


def from_inspector(text: str) -> LayerReport:
    """Read the layers from `EngineInspector.get_engine_information(LayerInformationFormat.JSON)` of TensorRT 10.x or 11.x.

    Raises:
        FinedgeError: it is not such JSON, or it holds names only.
    """
    try:
        layers = json.loads(text, strict=False)[
            "Layers"
        ]  # strict refuses the control characters that metadata may hold
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
        tuple(Tensor(t["name"], tuple(t["shape"]), t["dtype"]) for t in record[k])
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
    found = _LINE.match(line)
    if not found:
        raise FinedgeError(
            f"a layer line that is not understood: {line[:200]}",
            expected="Name, LayerType, Inputs, Constants, Outputs, TacticName, Metadata",
        )
    name, kind, inputs, constants, outputs, tactic, metadata = found.groups()
    return Layer(
        name,
        kind,
        _tensors(inputs),
        _tensors(outputs),
        _tensors(constants),
        tactic,
        _onnx_nodes(metadata),
    )


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, tuple(int(side) for side in sides.split(",") if side), _dtype(dtype))
        for name, sides, dtype in _TENSOR.findall(text)
    )


def _from_record(record: Mapping[str, Any]) -> Layer:
    weights = (
        record.get("Weights") or {}
    )  # absent for Myelin's layers, whose constants are listed as tensors
    constants = [_from_fields(c) for c in record.get("Constants", ())]
    if "Type" in weights:
        constants.append(Tensor("weights", (), _dtype(weights["Type"])))
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
        _onnx_nodes(record.get("Metadata", "")),
    )


def _from_fields(record: Mapping[str, Any]) -> Tensor:
    dtype = record.get("Datatype") or record.get("DataType") or record.get("Format/Datatype", "")
    return Tensor(record.get("Name", ""), tuple(record.get("Dimensions", ())), _dtype(dtype))


def _dtype(text: str) -> str:
    """Return the dtype named in e.g. "Half" or "Channel major FP16 format where channel % 8 == 0"; unknown for "N/A due to dynamic shapes"."""
    return next(
        (_TYPES[word] for word in re.findall(r"\w+", text.lower()) if word in _TYPES), UNKNOWN
    )


def _onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Return the node names in "[ONNX Layer: a][ONNX Layer: inner | call (F)]": a and inner; TensorRT puts separators between them in JSON."""
    return tuple(dict.fromkeys(name.split(" | ")[0] for name in _ONNX.findall(metadata)))


def _role_of_kernel(operations: tuple[str, ...]) -> Role:
    if (
        ("Sub", "Exp") in pairwise(operations) and "Log" not in operations
    ):  # exp(x - max x): few terms are not summed by a reduction but one by one
        return "softmax"
    if "Fc" in operations or "Gemm" in operations:
        return "matmul"
    return "reformat" if operations and _MOVES.issuperset(operations) else "other"


def _not_detailed(what: str) -> FinedgeError:
    return FinedgeError(
        what,
        expected="an engine built with ProfilingVerbosity.DETAILED, and for the log a logger that takes VERBOSE",
        fix="build again",
    )
