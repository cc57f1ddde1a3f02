"""The two libraries that build and run engines, under one interface.

TensorRT is the module `tensorrt` (10.3 to 11.x), TensorRT for RTX is `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from typing import Any

from finedge.errors import BackendMissing, SystemProblem, UsageError, nearest
from finedge.runtime.machine.packages import PackageMissing, package_version, reason_text

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
# NVIDIA's wheels: tensorrt_cu13_libs has the library, tensorrt_cu13_bindings the Python module.
CUDA_MAJORS, WHEEL_PARTS = range(11, 20), ("_bindings", "_libs")

# The last tensorrt_cu11 on the package index; there is no tensorrt_rtx_cu11.
LAST_FOR_CUDA_11 = (10, 13, 0, 35)


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
        installed = package_version(module)
    except PackageMissing as error:
        return f"{error.what}: {fix}"
    except SystemProblem as error:
        return reason_text(error)
    if backend == "tensorrt" and numbers(installed) < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return f"TensorRT {installed} is too old: needs {needed} (JetPack 6.1)"
    return None


def cuda_major(module: str) -> int:
    """Return the major version of the CUDA that a library's wheels were built for, or 0.

    Their names have it: tensorrt_cu13_libs. JetPack's packages have none. Where wheels of two
    versions are installed, it is unknown which one Python loads. Nothing is imported.
    """
    majors = [major for major in CUDA_MAJORS if _wheel_version(module, major)]
    return majors[0] if len(majors) == 1 else 0


def why_not_driver(module: str, driver: str) -> str | None:
    """Return why a library's wheels do not fit a driver that supports CUDA `driver`, or None.

    There TensorRT 11.4 logs error 35, and the next call on its object ends the process.
    """
    cuda, supported = cuda_major(module), int(driver.split(".")[0])
    if cuda <= supported:
        return None
    fix = driver_fix(module, version=_wheel_version(module, cuda), cuda=cuda, driver=supported)
    return f"the NVIDIA driver supports CUDA {driver}, {module} needs CUDA {cuda}: {fix}"


def driver_fix(module: str, *, version: str, cuda: int, driver: int) -> str:
    """Return what to do where a library is for CUDA `cuda` and the driver for an older one.

    Another CUDA binding for Python does not help.
    """
    if driver < 12 and (module != "tensorrt" or numbers(version) > LAST_FOR_CUDA_11):
        return f"update the driver: {module} {version} has no build for CUDA {driver}"
    wheels = " ".join(f"{module}_cu{cuda}{part}" for part in ("", *WHEEL_PARTS))
    return (
        f"update the driver, or install the build for CUDA {driver}: "
        f"pip uninstall {module} {wheels}; pip install {module}_cu{driver}=={version}"
    )


def _wheel_version(module: str, cuda: int) -> str:
    """Return the version of a library's installed wheels for a CUDA, or ""."""
    for part in WHEEL_PARTS:
        with suppress(PackageNotFoundError):
            return version(f"{module}_cu{cuda}{part}")
    return ""


def default_library() -> str:
    """Return the backend that `auto` means: the first whose library loads.

    Where none loads it is tensorrt-rtx, whose error says what to install.
    """
    return next((name for name in MODULES if why_not(name) is None), "tensorrt-rtx")


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.13.3.9" is (10, 13, 3, 9)."""
    parts = takewhile(str.isdigit, text.split("."))
    return tuple(int(part) for part in parts)
