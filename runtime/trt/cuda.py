"""CUDA's runtime API through one function that checks every status, and facts about the GPU.

The binding is `cuda.bindings.runtime` (cuda-bindings, and cuda-python 12.6.2 for JetPack 6); before
12.6 it was `cuda.cudart`. It imports without a driver. Then every call returns a status, or raises
RuntimeError before 12.9. Functions take the binding as an argument, so that tests can pass a fake
one.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from finedge.errors import BackendMissing, SystemProblem
from finedge.runtime.machine.packages import (
    PackageBroken,
    PackageMissing,
    failure_text,
    load_package,
    reason_text,
    reinstall_command,
)

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE = 0, 2, 35, 100
MIB = 2**20
LIBRARY = "libcuda.so.1"
BINDINGS = ("cuda.bindings.runtime", "cuda.cudart")
MEMORY_FIX = (
    "build with a smaller maximum batch (finedge build --batch), or end what else uses the GPU"
)


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


class Answer(NamedTuple):
    """What a call returned: `status` is 0 for success, `failure` is CUDA's text of any other."""

    status: int
    values: Sequence[Any]
    failure: str = ""


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
        answer = self.ask(function, *arguments)
        if answer.status != SUCCESS:
            raise SystemProblem(
                f"{function} failed: {answer.failure}",
                fix=_FIXES.get(answer.status, "finedge doctor; after a fault of the GPU, restart"),
            )
        return answer.values[0] if len(answer.values) == 1 else tuple(answer.values) or None

    def ask(self, function: str, *arguments: Any) -> Answer:
        """Call a function of the runtime API; a failure is an answer too.

        Without libcuda, cuda-python 12.6.2 and cuda-bindings 12.8 raise RuntimeError ("Failed to
        dlopen libcuda.so.1", later 'Function "cuInit" not found'). Since 12.9 they return status
        35. Here it is status 35 in every version.
        """
        try:
            status, *values = getattr(self.api, function)(*arguments)
        except RuntimeError as error:
            return Answer(INSUFFICIENT_DRIVER, (), failure_text(error))
        number = int(status)
        return Answer(number, values, "" if number == SUCCESS else self.name(status))

    def name(self, status: Any) -> str:
        """Return CUDA's name of a status, with its number and text.

        `status` is the binding's enum: before 13.2 the binding takes no plain int. The text needs
        libcuda in the versions that raise.
        """
        try:
            name = _text(self.api.cudaGetErrorName(status)[1])
            text = _text(self.api.cudaGetErrorString(status)[1])
        except (RuntimeError, AttributeError):
            return f"{getattr(status, 'name', 'status')} ({int(status)})"
        return f"{name} ({int(status)}): {text}"

    def allocate(self, function: str, *arguments: Any, size: int) -> int:
        """Call a function that allocates `size` bytes; return the pointer.

        Raises:
            OutOfDeviceMemory: the text has the size and how much is free.
            SystemProblem: any other failure.
        """
        if size < 1:
            raise ValueError(f"{function}: {size} bytes")
        answer = self.ask(function, *arguments)
        if answer.status == OUT_OF_MEMORY:
            raise OutOfDeviceMemory(
                f"{function} found no room for {size / MIB:.1f} MiB; {self.free()}",
                fix=MEMORY_FIX,
            )
        if answer.status != SUCCESS:
            raise SystemProblem(
                f"{function} of {size} bytes failed: {answer.failure}",
                fix=_FIXES.get(answer.status, "finedge doctor"),
            )
        return int(answer.values[0])

    def release(self, function: str, handle: Any) -> None:
        """Free a resource; a failure is only logged, because nothing more can be done."""
        answer = self.ask(function, handle)
        if answer.status != SUCCESS:
            log.warning("%s failed: %s", function, answer.failure)

    def free(self) -> str:
        """Return a sentence about how much of the GPU's memory is free."""
        answer = self.ask("cudaMemGetInfo")
        if answer.status != SUCCESS:
            return "how much is free is unknown"
        free, total = answer.values
        return f"{free // MIB} of {total // MIB} MiB are free"


_FIXES = {
    INSUFFICIENT_DRIVER: "install an NVIDIA driver that supports this CUDA, "
    "or a CUDA binding of the driver's version",
    NO_DEVICE: "check CUDA_VISIBLE_DEVICES; a container needs --gpus all, or --runtime nvidia",
}


def binding() -> Any | None:
    """Return CUDA's Python binding, or None where none is installed, or none loads."""
    for name in BINDINGS:
        with suppress(SystemProblem):
            return load_package(name)
    return None


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
            return _why_no_binding()
        return _why_no_device(Cuda(api)) or _device(Cuda(api))
    except SystemProblem as error:
        return error.what
    except Exception as error:
        return f"the CUDA binding fails: {failure_text(error)}: {reinstall_command('cuda')}"


def _device(cuda: Cuda) -> Gpu:
    facts = cuda("cudaGetDeviceProperties", 0)
    return Gpu(
        _text(facts.name),
        f"{facts.major}.{facts.minor}",
        bool(facts.integrated),
        int(facts.multiProcessorCount),
        int(facts.totalGlobalMem) // MIB,
        version_text(cuda("cudaDriverGetVersion")),
    )


def _why_no_binding() -> str:
    broken = next(filter(None, map(_why_broken, BINDINGS)), None)
    return broken or (
        "no CUDA binding for Python: pip install cuda-bindings "
        "(on JetPack 6: pip install cuda-python==12.6.2)"
    )


def _why_broken(name: str) -> str | None:
    try:
        load_package(name)
    except PackageBroken as error:
        return reason_text(error)
    except PackageMissing:
        return None
    return None


def _why_no_device(cuda: Cuda) -> str | None:
    answer = cuda.ask("cudaGetDeviceCount")
    if answer.status == SUCCESS and answer.values[0]:
        return None
    if answer.status == INSUFFICIENT_DRIVER:
        return _why_no_driver(cuda)
    reason = answer.failure or "it counts 0"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    setting = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"
    return f"CUDA sees no NVIDIA GPU: {reason}{setting}"


def _why_no_driver(cuda: Cuda) -> str:
    driver, runtime = cuda.ask("cudaDriverGetVersion"), cuda("cudaRuntimeGetVersion")
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


def driver_version(library: str = LIBRARY) -> int:
    """Return the newest CUDA that the driver supports: 12060 for 12.6; 0 without a driver.

    No CUDA package is needed.
    """
    version = ctypes.c_int()
    try:
        ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def version_text(number: int) -> str:
    """Return "12.6" for CUDA's 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(value: bytes | str) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).rstrip("\0")
