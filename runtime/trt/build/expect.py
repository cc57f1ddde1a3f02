"""What the layers of an engine must compute in.

INT8 where the calibration record says so; no matrix product and no softmax in FP32 in an engine
that computes in float16. TensorRT accepts a Q/DQ model that it cannot run in INT8 and runs it in
float without a warning; only the layer list shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from finedge.bundle import PORTABLE_FILE, Bundle
from finedge.provenance import QuantizationRecord
from finedge.runtime.trt.build.layers import Layer, LayerReport

if TYPE_CHECKING:
    import onnx

# Precisions whose float part is float16; int8-fp32 computes in FP32 on purpose.
FLOAT16_PRECISIONS = ("fp16", "int8")


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
        int8_layers: names of the Conv and Gemm nodes that the calibration quantized; looked for in
            int8 and int8-fp32 engines only.
        precision: what was built: fp32, fp16, int8 or int8-fp32.
        softmaxes: names of the Softmax nodes that must compute in float16 (`inner_softmaxes`). None
            is every softmax that is recognised by its kernel's name, which TensorRT cuts where much
            is fused into one kernel.
    """
    int8 = _not_int8(report, int8_layers) if precision.startswith("int8") else ()
    fp32 = _in_fp32(report, softmaxes) if precision in FLOAT16_PRECISIONS else ()
    return (*int8, *fp32)


def problems(
    report: LayerReport,
    *,
    bundle: Bundle,
    model: onnx.ModelProto,
    precision: str,
    is_part: bool = False,
) -> tuple[str, ...]:
    """Return what `check_layers` reports about an engine of a bundle, built from `model`.

    Empty where no layers are known. A part of the model has some of the quantized layers.
    """
    if not report.layers:
        return ()
    placed = bundle.calibration.placements.get(PORTABLE_FILE, QuantizationRecord())
    names = {node.name for node in model.graph.node}
    return check_layers(
        report,
        int8_layers=[n for n in placed.int8 if n in names] if is_part else placed.int8,
        precision=precision,
        softmaxes=inner_softmaxes(model),
    )


def inner_softmaxes(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the Softmax nodes inside a model as the builder gets it.

    Those that turn logits into probabilities are left out: they stay FP32.
    """
    from finedge.graph.keep_float32 import keep_float32  # it loads onnx, 30 ms

    final = keep_float32(model.graph)
    names = {node.name for node in model.graph.node if node.op_type == "Softmax"}
    return frozenset(names.difference(final))


def _not_int8(report: LayerReport, names: Sequence[str]) -> Iterator[str]:
    if names and not any(layer.onnx for layer in report.layers):
        yield (
            f"{len(names)} layers are INT8 in the calibration record, and no layer of the engine "
            "names an ONNX node: what they compute in is unknown"
        )
        return
    by_node: dict[str, list[Layer]] = {}
    for layer in report.layers:
        for name in layer.onnx:
            by_node.setdefault(name, []).append(layer)
    for name in names:
        yield from _not_int8_node(name, by_node.get(name, ()))


def _not_int8_node(name: str, layers: Sequence[Layer]) -> Iterator[str]:
    """Yield what is wrong with a node that should be INT8; `layers` are those that name it."""
    start = f"{name} is INT8 in the calibration record, and"
    products = [layer for layer in layers if layer.role in ("convolution", "matmul")]
    unknown = [layer for layer in layers if layer.role == "unknown"]
    if not products and not unknown:
        others = ", ".join(f"{layer.kind} in {layer.precision} ({layer.name})" for layer in layers)
        only = f", only {others}" if others else ""
        yield f"{start} no convolution or matrix product of the engine names it{only}"
    for layer in products or unknown:
        if layer.precision != "int8":
            kind = f", type '{layer.kind}', which is unknown" if layer in unknown else ""
            yield f"{start} the engine reads {layer.precision} ({layer.name}{kind})"


def _in_fp32(report: LayerReport, softmaxes: Collection[str] | None) -> Iterator[str]:
    for layer in report.layers:
        name = ", ".join(layer.onnx) or layer.name
        dtypes = {tensor.dtype for tensor in (*layer.inputs, *layer.outputs)}
        if layer.role in ("matmul", "attention") and layer.precision == "fp32":
            yield f"{layer.role} {name} reads FP32"
        elif _is_softmax(layer, softmaxes) and dtypes == {"fp32"}:
            yield f"softmax {name} reads and writes FP32"


def _is_softmax(layer: Layer, names: Collection[str] | None) -> bool:
    # A kernel that reads FP32 and writes float16 contains the Cast: INT8 convolutions of TensorRT
    # for RTX write FP32.
    if names is None:
        return layer.role == "softmax"
    return not frozenset(names).isdisjoint(layer.onnx)
