"""CUDA's runtime API through one function that checks every status, and facts about the GPU.

The binding is `cuda.bindings.runtime` (package cuda-bindings); on JetPack 6 it is `cuda.cudart`
(cuda-python 12.6, the version of its CUDA). Both import without a driver: every call then returns a
status. Functions take the binding as an argument, so that tests can pass a fake one.
"""

from __future__ import annotations

import importlib
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from finedge.errors import BackendMissing, SystemProblem

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE = 0, 2, 35, 100
MIB = 2**20


class OutOfDeviceMemory(SystemProblem):
    """The GPU, or the memory that it shares with the CPU, is full."""


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


@dataclass(frozen=True)
class Cuda:
    """A binding with every status checked.

    `cuda("cudaMalloc", 16)` returns the pointer or raises.
    """

    api: Any

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime API by its name.

        Returns:
            What it returns after the status: None, one value, or a tuple.

        Raises:
            SystemProblem: any status but success; the text has the function, and CUDA's name and
                text of the status.
        """
        status, *values = getattr(self.api, function)(*arguments)
        if int(status) != SUCCESS:
            raise SystemProblem(
                f"{function} failed: {self.name(status)}",
                fix=_FIXES.get(int(status), "finedge doctor; after a fault of the GPU, restart"),
            )
        return values[0] if len(values) == 1 else tuple(values) or None

    def name(self, status: Any) -> str:
        """Return CUDA's name of a status, with its number and text."""
        name = _text(self.api.cudaGetErrorName(status)[1])
        text = _text(self.api.cudaGetErrorString(status)[1])
        return f"{name} ({int(status)}): {text}"

    def allocate(self, function: str, *arguments: Any, size: int) -> int:
        """Call a function that allocates `size` bytes; return the pointer.

        Raises:
            OutOfDeviceMemory: the text has the size and how much is free.
            SystemProblem: any other failure.
        """
        if size < 1:
            raise ValueError(f"{function}: {size} bytes")
        status, *pointer = getattr(self.api, function)(*arguments)
        if int(status) == OUT_OF_MEMORY:
            raise OutOfDeviceMemory(
                f"{function} found no room for {size / MIB:.1f} MiB; {self.free()}",
                fix="build with a smaller maximum batch (finedge build --batch), "
                "or end what else uses the GPU",
            )
        if int(status) != SUCCESS:
            raise SystemProblem(
                f"{function} of {size} bytes failed: {self.name(status)}",
                fix=_FIXES.get(int(status), "finedge doctor"),
            )
        return int(pointer[0])

    def release(self, function: str, handle: Any) -> None:
        """Free a resource; a failure is only logged, because nothing more can be done."""
        status, *_ = getattr(self.api, function)(handle)
        if int(status) != SUCCESS:
            log.warning("%s failed: %s", function, self.name(status))

    def free(self) -> str:
        """Return a sentence about how much of the GPU's memory is free."""
        status, *sizes = self.api.cudaMemGetInfo()
        if int(status) != SUCCESS:
            return "how much is free is unknown"
        return f"{sizes[0] // MIB} of {sizes[1] // MIB} MiB are free"


_FIXES = {
    INSUFFICIENT_DRIVER: "install an NVIDIA driver that supports this CUDA, "
    "or a CUDA binding of the driver's version",
    NO_DEVICE: "check CUDA_VISIBLE_DEVICES; a container needs --gpus all, or --runtime nvidia",
}


def binding() -> Any | None:
    """Return CUDA's Python binding, or None where none is installed."""
    with suppress(ImportError):
        return importlib.import_module("cuda.bindings.runtime")
    with suppress(ImportError):
        return importlib.import_module("cuda.cudart")
    return None


def gpu(api: Any = None) -> Gpu | None:
    """Return the GPU that work would go to, or None; `why_no_gpu` gives the reason.

    Args:
        api: a binding; the installed one by default.
    """
    api = api or binding()
    if api is None or why_no_gpu(api) is not None:
        return None
    cuda = Cuda(api)
    facts = cuda("cudaGetDeviceProperties", 0)
    return Gpu(
        _text(facts.name),
        f"{facts.major}.{facts.minor}",
        bool(facts.integrated),
        int(facts.multiProcessorCount),
        int(facts.totalGlobalMem) // MIB,
        _version(cuda("cudaDriverGetVersion")),
    )


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
    api = api or binding()
    if api is None:
        return (
            "no CUDA binding for Python: pip install cuda-bindings "
            "(on JetPack 6: pip install cuda-python==12.6.2)"
        )
    status, count = api.cudaGetDeviceCount()
    if int(status) == SUCCESS and count:
        return None
    if int(status) == INSUFFICIENT_DRIVER:
        return _why_no_driver(Cuda(api))
    reason = Cuda(api).name(status) if int(status) != SUCCESS else "it counts 0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    setting = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"
    return f"CUDA sees no NVIDIA GPU: {reason}{setting}"


def _why_no_driver(cuda: Cuda) -> str:
    driver, runtime = cuda("cudaDriverGetVersion"), cuda("cudaRuntimeGetVersion")
    if not driver:
        return "no NVIDIA driver: install one; a container needs --gpus all, or --runtime nvidia"
    return (
        f"the NVIDIA driver supports CUDA {_version(driver)}, "
        f"the binding needs {_version(runtime)}: "
        f"update it, or pip install 'cuda-bindings<{driver // 1000 + 1}'"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(value: bytes | str) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).rstrip("\0")
