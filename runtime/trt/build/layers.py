"""The layers of an engine, their precisions and roles, and counts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finedge.runtime.trt.build.roles import ARITHMETIC, Role, operations_of, role_of

UNKNOWN: Literal["unknown"] = "unknown"
_COUNT_NAMES = {"plugin_layers": "plugin layers", "reformats": "reformats"}


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


def _by_kind(layers: Sequence[Layer]) -> dict[str, int]:
    return dict(Counter(layer.kind for layer in layers).most_common())
