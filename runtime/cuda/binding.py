"""CUDA's runtime API through one function that checks every status.

The binding is `cuda.bindings.runtime` (cuda-bindings, and cuda-python 12.6.2 for JetPack 6); before
12.6 it was `cuda.cudart`. It imports without a driver. Then every call returns a status, or raises
RuntimeError before 12.9. Functions take the binding as an argument, so that tests can pass a fake
one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from finedge.errors import SystemProblem
from finedge.runtime.machine.packages import (
    PackageBroken,
    PackageMissing,
    failure_text,
    load_package,
    reason_text,
)

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE = 0, 2, 35, 100
MIB = 2**20
BINDINGS = ("cuda.bindings.runtime", "cuda.cudart")
MEMORY_FIX = (
    "build with a smaller maximum batch (finedge build --batch), or end what else uses the GPU"
)


class OutOfDeviceMemory(SystemProblem):
    """The GPU, or the memory that it shares with the CPU, is full."""


class CallResult(NamedTuple):
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
        result = self.try_call(function, *arguments)
        if result.status != SUCCESS:
            raise SystemProblem(
                f"{function} failed: {result.failure}",
                fix=_FIXES.get(result.status, "finedge doctor; after a fault of the GPU, restart"),
            )
        return result.values[0] if len(result.values) == 1 else tuple(result.values) or None

    def try_call(self, function: str, *arguments: Any) -> CallResult:
        """Call a function of the runtime API; a failure is returned, not raised.

        Without libcuda, cuda-python 12.6.2 and cuda-bindings 12.8 raise RuntimeError ("Failed to
        dlopen libcuda.so.1", later 'Function "cuInit" not found'). Since 12.9 they return status
        35. Here it is status 35 in every version.
        """
        try:
            status, *values = getattr(self.api, function)(*arguments)
        except RuntimeError as error:
            return CallResult(INSUFFICIENT_DRIVER, (), failure_text(error))
        number = int(status)
        return CallResult(number, values, "" if number == SUCCESS else self.name(status))

    def name(self, status: Any) -> str:
        """Return CUDA's name of a status, with its number and text.

        `status` is the binding's enum: before 13.2 the binding takes no plain int. The text needs
        libcuda in the versions that raise.
        """
        try:
            name = text_of(self.api.cudaGetErrorName(status)[1])
            text = text_of(self.api.cudaGetErrorString(status)[1])
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
        result = self.try_call(function, *arguments)
        if result.status == OUT_OF_MEMORY:
            raise OutOfDeviceMemory(
                f"{function} found no room for {size / MIB:.1f} MiB; {self.free()}",
                fix=MEMORY_FIX,
            )
        if result.status != SUCCESS:
            raise SystemProblem(
                f"{function} of {size} bytes failed: {result.failure}",
                fix=_FIXES.get(result.status, "finedge doctor"),
            )
        return int(result.values[0])

    def release(self, function: str, handle: Any) -> None:
        """Free a resource; a failure is only logged, because nothing more can be done."""
        result = self.try_call(function, handle)
        if result.status != SUCCESS:
            log.warning("%s failed: %s", function, result.failure)

    def free(self) -> str:
        """Return a sentence about how much of the GPU's memory is free."""
        result = self.try_call("cudaMemGetInfo")
        if result.status != SUCCESS:
            return "how much is free is unknown"
        free, total = result.values
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


def why_no_binding() -> str:
    """Return why there is no binding: none is installed, or it does not load."""
    broken = next(filter(None, map(_why_broken, BINDINGS)), None)
    return broken or (
        "no CUDA binding for Python: pip install cuda-bindings "
        "(on JetPack 6: pip install 'cuda-python==12.6.*')"
    )


def _why_broken(name: str) -> str | None:
    try:
        load_package(name)
    except PackageBroken as error:
        return reason_text(error)
    except PackageMissing:
        return None
    return None


def text_of(value: bytes | str) -> str:
    """Return a text of CUDA: bindings return bytes, some of them with the final zero."""
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).rstrip("\0")
