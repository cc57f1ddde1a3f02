"""What the layers of an engine must be: INT8 where the calibration says so, no matrix product or softmax in FP32 where half was asked for.

TensorRT takes a Q/DQ model that it cannot run in INT8 and runs it in float without a word; only the layer list shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from finedge.bundle import PORTABLE_FILE, Bundle
from finedge.graph.keep_float32 import keep_float32
from finedge.provenance import QuantizationRecord
from finedge.runtime.trt.build.layers import Layer, LayerReport

if TYPE_CHECKING:
    import onnx

HALF = ("fp16", "int8")  # int8-fp32 leaves in FP32 on purpose what is not quantised


def check_layers(
    report: LayerReport,
    *,
    int8_layers: Sequence[str],
    precision: str,
    softmaxes: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Return what is wrong with the layers of an engine, one sentence each; empty if nothing is.

    Args:
        report: the layers of the engine.
        int8_layers: names of the Conv and Gemm nodes that the calibration placed in INT8; looked for in int8 and int8-fp32 engines only.
        precision: what was built: fp32, fp16, int8 or int8-fp32.
        softmaxes: names of the Softmax nodes that must compute in half (see `inner_softmaxes`); None is every softmax that is known by the
            name of its kernel, which TensorRT cuts where much is fused into one.
    """
    int8 = _not_int8(report, int8_layers) if precision.startswith("int8") else ()
    fp32 = _in_fp32(report, softmaxes) if precision in HALF else ()
    return (*int8, *fp32)


def problems(
    report: LayerReport, *, bundle: Bundle, model: onnx.ModelProto, precision: str
) -> tuple[str, ...]:
    """Return what `check_layers` finds in an engine of a calibrated bundle, built from `model`; empty where no layers are known."""
    if not report.layers:
        return ()
    placed = bundle.calibration.placements.get(PORTABLE_FILE, QuantizationRecord())
    return check_layers(
        report,
        int8_layers=placed.int8,
        precision=precision,
        softmaxes=inner_softmaxes(model),
    )


def inner_softmaxes(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the Softmax nodes of a model as given to the builder, without those that turn logits into probabilities: these stay FP32."""
    final = keep_float32(model.graph)
    return frozenset(
        n.name for n in model.graph.node if n.op_type == "Softmax" and n.name not in final
    )


def _not_int8(report: LayerReport, names: Sequence[str]) -> Iterator[str]:
    by_node: dict[str, list[Layer]] = {}
    for layer in report.of("convolution", "matmul"):
        for name in layer.onnx:
            by_node.setdefault(name, []).append(layer)
    for name in names:
        computed = by_node.get(name, [])
        if not computed:
            yield f"{name} is INT8 in the calibration record, and no convolution or matrix product of the engine names it"
        for layer in computed:
            if layer.precision != "int8":
                yield f"{name} is INT8 in the calibration record, and the engine reads {layer.precision} ({layer.name})"


def _in_fp32(report: LayerReport, softmaxes: Collection[str] | None) -> Iterator[str]:
    for layer in report.layers:
        if layer.role in ("matmul", "attention") and layer.precision == "fp32":
            yield f"{layer.role} {', '.join(layer.onnx) or layer.name} reads FP32"
        elif _is_softmax(layer, softmaxes) and {
            t.dtype for t in (*layer.inputs, *layer.outputs)
        } == {"fp32"}:
            yield f"softmax {', '.join(layer.onnx) or layer.name} reads and writes FP32"


def _is_softmax(layer: Layer, named: Collection[str] | None) -> bool:
    # A kernel that reads FP32 and writes half has the Cast inside: INT8 convolutions of RTX write FP32.
    return layer.role == "softmax" if named is None else not frozenset(named).isdisjoint(layer.onnx)
