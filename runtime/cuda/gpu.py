"""The GPU that work goes to, asked through CUDA's Python binding; or why there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from finedge.errors import BackendMissing, SystemProblem
from finedge.runtime.cuda.binding import (
    INSUFFICIENT_DRIVER,
    MIB,
    SUCCESS,
    Cuda,
    binding,
    text_of,
    why_no_binding,
)
from finedge.runtime.cuda.libcuda import version_text
from finedge.runtime.machine.packages import failure_text, reinstall_command


@dataclass(frozen=True)
class Gpu:
    """The GPU that work goes to: CUDA's device 0.

    Where there are several, CUDA_VISIBLE_DEVICES chooses it.

    Attributes:
        name: e.g. "Orin".
        compute_capability: e.g. "8.7".
        integrated: it shares the CPU's memory (Jetson): mapped buffers need no copies.
        processors: its streaming multiprocessors.
        memory_mib: its whole memory in MiB.
        driver: the newest CUDA that the driver supports, e.g. "12.6".
    """

    name: str
    compute_capability: str
    integrated: bool
    processors: int
    memory_mib: int
    driver: str


def gpu(api: Any = None) -> Gpu | None:
    """Return the GPU that work would go to, or None; `why_no_gpu` gives the reason.

    Args:
        api: a binding; the installed one by default.
    """
    device = _look(api)
    return device if isinstance(device, Gpu) else None


def require_gpu() -> Gpu:
    """Return the GPU that work goes to.

    Raises:
        BackendMissing: no GPU is usable here.
    """
    device = gpu()
    if device is None:
        raise BackendMissing(f"an engine cannot run here: {why_no_gpu()}")
    return device


def why_no_gpu(api: Any = None) -> str | None:
    """Return why nothing can run on a GPU here and what to do, or None."""
    device = _look(api)
    return device if isinstance(device, str) else None


def _look(api: Any) -> Gpu | str:
    """Return the GPU, or why there is none; it never raises."""
    try:
        api = api or binding()
        if api is None:
            return why_no_binding()
        return _why_no_device(Cuda(api)) or _device(Cuda(api))
    except SystemProblem as error:
        return error.what
    except Exception as error:
        return f"the CUDA binding fails: {failure_text(error)}: {reinstall_command('cuda')}"


def _device(cuda: Cuda) -> Gpu:
    facts = cuda("cudaGetDeviceProperties", 0)
    return Gpu(
        text_of(facts.name),
        f"{facts.major}.{facts.minor}",
        bool(facts.integrated),
        int(facts.multiProcessorCount),
        int(facts.totalGlobalMem) // MIB,
        version_text(cuda("cudaDriverGetVersion")),
    )


def _why_no_device(cuda: Cuda) -> str | None:
    devices = cuda.try_call("cudaGetDeviceCount")
    if devices.status == SUCCESS and devices.values[0]:
        return None
    if devices.status == INSUFFICIENT_DRIVER:
        return _why_no_driver(cuda)
    reason = devices.failure or "it counts 0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    setting = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"
    return f"CUDA sees no NVIDIA GPU: {reason}{setting}"


def _why_no_driver(cuda: Cuda) -> str:
    driver, runtime = cuda.try_call("cudaDriverGetVersion"), cuda("cudaRuntimeGetVersion")
    if driver.status != SUCCESS or not driver.values[0]:
        return "no NVIDIA driver: install one; a container needs --gpus all, or --runtime nvidia"
    number = driver.values[0]
    major = number // 1000
    return (
        f"the NVIDIA driver supports CUDA {version_text(number)}, "
        f"the binding needs {version_text(runtime)}: "
        f"update it, or pip install 'cuda-bindings<{major + 1}' and a TensorRT for CUDA {major} "
        f"(tensorrt-cu{major}; on a Jetson JetPack's)"
    )
