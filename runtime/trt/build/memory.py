"""The memory that a build needs, estimated from the graph before the build starts.

    weights     = bytes of the initializers
    activations = the largest sum of bytes of tensors alive at once at the largest batch, nodes in
                  file order; outputs of Q/DQ pairs count nothing, because TensorRT fuses them
    host        = BASE_MIB + HOST_COPIES x weights
    device      = DEVICE_COPIES x weights + activations

A GPU that shares the CPU's memory needs both there. The workspace is a limit and not a need, so it
is left out. The host's constants come from builds with TensorRT for RTX on a machine without a GPU
(peak of the whole process / formula, in MiB): birds fp32 281/361, CNL on EfficientNet-Lite0 fp32
339/404 and int8 353/364, a float ResNet-50 774/789. The device's constants are not measured.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from finedge.errors import SystemProblem
from finedge.graph.sizes import shapes_of
from finedge.runtime.cuda.gpu import Gpu
from finedge.runtime.machine.memory import memory_mib

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

MIB = 1 << 20
BASE_MIB = 350
HOST_COPIES = 4
DEVICE_COPIES = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """The parts of the formula in MiB.

    `unknown` counts the tensors whose shape is not inferred; they add nothing.
    """

    weights_mib: float
    activations_mib: float
    host_mib: float
    device_mib: float
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data, rounded to a tenth of a MiB."""
        return {name: round(value, 1) for name, value in asdict(self).items()}


def estimate(model: onnx.ModelProto, *, batch: int) -> MemoryEstimate:
    """Estimate the memory that a build of a prepared model takes at a largest batch of `batch`."""
    import onnx

    weights = sum(_bytes(t.data_type, tuple(t.dims), batch) for t in model.graph.initializer) / MIB
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    sizes = _sizes(inferred, batch)
    activations = _peak(inferred, sizes) / MIB
    unknown = sum(name not in sizes for node in inferred.graph.node for name in node.output if name)
    return MemoryEstimate(
        weights,
        activations,
        BASE_MIB + HOST_COPIES * weights,
        DEVICE_COPIES * weights + activations,
        unknown,
    )


def check_memory(need: MemoryEstimate, *, gpu: Gpu | None) -> None:
    """Warn where the estimate is more than the free memory; refuse if more than the whole.

    `gpu` is this machine's, or None where the engine is for another machine.

    Raises:
        SystemProblem: this machine can never hold the build.
    """
    shared = gpu is not None and gpu.integrated
    sizes = memory_mib()
    if isinstance(sizes, dict) and {"total", "available"} <= set(sizes):
        host = need.host_mib + (need.device_mib if shared else 0)
        _compare("memory", host, total=sizes["total"], free=sizes["available"])
    if gpu is not None and not shared:
        total = gpu.memory_mib
        _compare(f"memory of {gpu.name}", need.device_mib, total=total, free=total)


def _compare(memory: str, need: float, *, total: float, free: float) -> None:
    if need > total:
        raise SystemProblem(
            f"the build needs about {need:.0f} MiB of {memory}",
            expected=f"at most {total:.0f} MiB",
            fix="a smaller --batch, or another machine",
        )
    if need > free:
        log.warning(
            "the build needs about %.0f MiB of %s, %.0f MiB are free: "
            "end other programs if it fails",
            need,
            memory,
            free,
        )


def _sizes(model: onnx.ModelProto, batch: int) -> dict[str, int]:
    """Return the bytes of each tensor whose shape is known except for the batch."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types, shapes = {v.name: v.type.tensor_type.elem_type for v in values}, shapes_of(model)
    return {
        name: _bytes(types[name], shape, batch)
        for name, shape in shapes.items()
        if None not in shape[1:]
    }


def _peak(model: onnx.ModelProto, sizes: dict[str, int]) -> int:
    """Return the largest sum of bytes of tensors that are alive at once."""
    nodes = model.graph.node
    last = {name: i for i, node in enumerate(nodes) for name in node.input}
    fused = {
        name
        for node in nodes
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.output
    }
    live: dict[str, int] = {v.name: sizes.get(v.name, 0) for v in model.graph.input}
    peak = 0
    for i, node in enumerate(nodes):
        live |= {name: sizes.get(name, 0) for name in node.output if name not in fused}
        peak = max(peak, sum(live.values()))
        for name in (*node.input, *node.output):
            if last.get(name, -1) <= i and name in live:
                del live[name]
    return peak


def _bytes(elem_type: int, shape: tuple[int | None, ...], batch: int) -> int:
    import onnx

    width = onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize if elem_type else 4
    return int(math.prod(batch if n is None else n for n in shape)) * width
