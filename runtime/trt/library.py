"""The two libraries that build and run engines, under one interface.

TensorRT is the module `tensorrt` (10.3 to 11.x), TensorRT for RTX is `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import takewhile
from typing import Any

from finedge.errors import BackendMissing, SystemProblem, UsageError, nearest
from finedge.runtime.machine.packages import PackageMissing, package_version

# backend name -> module, short name in file names, what installs it
MODULES = {
    "tensorrt": (
        "tensorrt",
        "trt",
        "pip install 'finedge[tensorrt]'; a Jetson has it from JetPack "
        "(make the environment with --system-site-packages)",
    ),
    "tensorrt-rtx": ("tensorrt_rtx", "rtx", "pip install 'finedge[rtx]'"),
}
MIN_VERSION = (10, 3)
# NVIDIA calls strong typing incomplete in older versions: there a failed build may be tried again
# with weak typing.
STRONG_SINCE = (10, 12)
CUDA_MAJORS = range(11, 20)  # whose wheels `cuda_major` looks for


@dataclass(frozen=True)
class TrtLibrary:
    """A loaded library: `trt` is the module, `short` is its name in file names."""

    name: str
    short: str
    trt: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT for RTX: always strongly typed, and builds without a GPU."""
        return self.name == "tensorrt-rtx"

    @property
    def may_type_weakly(self) -> bool:
        """Whether a failed strongly typed build may be tried again with precision flags."""
        return not self.is_rtx and numbers(self.version) < STRONG_SINCE


def load_library(backend: str) -> TrtLibrary:
    """Import the library of `backend`: tensorrt or tensorrt-rtx.

    Raises:
        UsageError: the name is unknown.
        BackendMissing: the library is missing, broken or too old; the text is `why_not()`.
    """
    if backend not in MODULES:
        raise UsageError(f"no engine builder '{backend}'", expected=nearest(backend, MODULES))
    reason = why_not(backend)
    if reason:
        raise BackendMissing(f"backend '{backend}' cannot build here: {reason}")
    module, short, _ = MODULES[backend]
    trt = importlib.import_module(module)
    return TrtLibrary(backend, short, trt, str(trt.__version__))


def why_not(backend: str) -> str | None:
    """Return why the library of `backend` cannot be used here, or None; a GPU is not looked for."""
    module, _, fix = MODULES[backend]
    try:
        version = package_version(module)
    except PackageMissing as error:
        return f"{error.what}: {fix}"
    except SystemProblem as error:
        return error.what
    if backend == "tensorrt" and numbers(version) < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return f"TensorRT {version} is too old: needs {needed} (JetPack 6.1)"
    return None


def cuda_major(module: str) -> int | None:
    """Return the major version of the CUDA that a library's wheels were built for, or None.

    Their names have it: tensorrt_cu13_libs. JetPack's packages have none. Where wheels of two
    versions are installed, nobody knows which one Python loads. Nothing is imported.
    """
    majors = [major for major in CUDA_MAJORS if _has_wheel(f"{module}_cu{major}_libs")]
    return majors[0] if len(majors) == 1 else None


def why_not_driver(module: str, driver: str) -> str | None:
    """Return why a library's wheels do not fit a driver that supports CUDA `driver`, or None.

    TensorRT 11.4 for CUDA 13 logs error 35 there, and ends the process at the next call.
    """
    needed, supported = cuda_major(module), int(driver.split(".")[0])
    if needed is None or needed <= supported:
        return None
    package = f"{module.replace('_', '-')}-cu"
    return (
        f"the NVIDIA driver supports CUDA {driver}, {package}{needed} needs CUDA {needed}: "
        f"update the driver, or pip uninstall {package}{needed}-libs "
        f"and pip install {package}{supported}"
    )


def _has_wheel(name: str) -> bool:
    try:
        return distribution(name) is not None
    except PackageNotFoundError:
        return False


def default_library() -> str:
    """Return the backend that `auto` means: the first whose library loads.

    Where none loads it is tensorrt-rtx, whose error says what to install.
    """
    return next((name for name in MODULES if why_not(name) is None), "tensorrt-rtx")


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.13.3.9" is (10, 13, 3, 9)."""
    parts = takewhile(str.isdigit, version.split("."))
    return tuple(int(part) for part in parts)
