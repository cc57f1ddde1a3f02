"""The two libraries that build and run engines, under one interface.

TensorRT is the module `tensorrt` (10.3 to 11.x), TensorRT for RTX is `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from finedge.errors import BackendMissing, UsageError, nearest

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
    if importlib.util.find_spec(module) is None:
        return f"the package {module} is missing: {fix}"
    try:
        version = str(importlib.import_module(module).__version__)
    # Broken installations fail in many ways: ImportError, OSError, RuntimeError of a placeholder.
    except Exception as error:
        return f"the package {module} does not load: {error}"
    if backend == "tensorrt" and numbers(version) < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return f"TensorRT {version} is too old: needs {needed} (JetPack 6.1)"
    return None


def default_library() -> str:
    """Return the backend that `auto` means: the first whose library loads.

    Where none loads it is tensorrt-rtx, whose error says what to install.
    """
    return next((name for name in MODULES if why_not(name) is None), "tensorrt-rtx")


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.13.3.9" is (10, 13, 3, 9)."""
    parts = takewhile(str.isdigit, version.split("."))
    return tuple(int(part) for part in parts)
