"""Creates TensorRT's objects, and refuses those that would end the process.

Where the driver is older than TensorRT's CUDA, a Runtime may be returned all the same: the library
only logs an error, and the next call on the object is a segmentation fault, its destruction too
(real TensorRT 11.4 lean). Other versions return null, and the binding raises a bare TypeError.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.trt.build.log import collected, logger
from finedge.runtime.trt.plugin.driver import LIBRARY

# In the binding's TypeError where a factory returns null.
NULL = "nullptr"
# What TensorRT logs where CUDA does not start because of the driver (CUDA's error 35).
OLD_DRIVER = re.compile(r"error:? 35\b|insufficient for CUDA")


def create(factory: Callable[..., Any], *arguments: Any, trt: Any) -> Any:
    """Call `factory(*arguments, logger)`: trt.Builder, trt.Runtime or trt.OnnxParser.

    Raises:
        SystemProblem: an error was logged, or there is no object. The text quotes TensorRT and
            says which driver it needs.
    """
    with collected(trt) as messages:
        try:
            instance = factory(*arguments, logger(trt))
        except TypeError as error:
            if NULL not in str(error):
                raise
            instance = None
    if instance is None or messages.errors:
        # Destroying a half-made object ends the process, at its end too: it is never destroyed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))
        reason = next(iter(messages.errors), "it gave no reason")
        raise _refusal(factory.__name__, reason.strip(), trt)
    return instance


def _refusal(name: str, reason: str, trt: Any) -> SystemProblem:
    what = f"{trt.__name__} {trt.__version__} cannot create its {name}: {reason}"
    if not OLD_DRIVER.search(reason):
        fix = "finedge doctor shows driver and GPU"
        return SystemProblem(what, expected="a driver and a GPU that CUDA can use", fix=fix)
    cuda, driver = cuda_of(trt), driver_cuda()
    supported = f"; this one supports CUDA {driver}" if driver else "; none is loaded"
    expected = f"an NVIDIA driver for CUDA {cuda or 'of this TensorRT'}{supported}"
    return SystemProblem(what, expected=expected, fix=_fix(trt, cuda, driver))


def _fix(trt: Any, cuda: int, driver: int) -> str:
    """Return what to do; another CUDA binding for Python does not help here."""
    if not driver:
        return "install an NVIDIA driver; a container needs --gpus all, or --runtime nvidia"
    if not cuda:
        return "update the driver; on a Jetson, install the JetPack that this TensorRT is part of"
    name = _package(trt)
    old = " ".join(f"{name}_cu{cuda}{part}" for part in ("", "_bindings", "_libs"))
    return (
        f"update the driver, or install the build for CUDA {driver}: "
        f"pip uninstall {name} {old}; pip install {name}_cu{driver}=={trt.__version__}"
    )


def cuda_of(trt: Any) -> int:
    """Return the major version of CUDA that the installed TensorRT was built for, or 0.

    The name of its package says it (`tensorrt_cu13_bindings`); one from a JetPack has none.
    """
    bindings = f"{_package(trt)}_bindings"
    packages = importlib.metadata.packages_distributions().get(bindings, ())
    versions = [re.search(r"[_-]cu(\d+)", package) for package in packages]
    return next((int(match[1]) for match in versions if match), 0)


def driver_cuda(library: str = LIBRARY) -> int:
    """Return the major version of the newest CUDA that the driver supports; 0 without a driver."""
    version = ctypes.c_int()
    try:
        ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value // 1000


def _package(trt: Any) -> str:
    return str(trt.__name__).removesuffix("_bindings")
