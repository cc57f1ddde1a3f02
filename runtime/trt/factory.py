"""Creates TensorRT's objects, and refuses those that would end the process.

Where the driver is older than TensorRT's CUDA, a Runtime may be returned all the same. The library
only logs an error. The next call on the object is a segmentation fault, and so is its destruction
(real TensorRT 11.4 lean). Other versions return null, and the binding raises a bare TypeError.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import driver_version
from finedge.runtime.trt.library import cuda_major, driver_fix
from finedge.runtime.trt.log import collected, logger

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
        # Destroying such an object ends the process, also at exit: a reference is kept forever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))
        reason = next(iter(messages.errors), "it gave no reason")
        raise _refusal(factory.__name__, reason.strip(), trt)
    return instance


def _refusal(name: str, reason: str, trt: Any) -> SystemProblem:
    what = f"{trt.__name__} {trt.__version__} cannot create its {name}: {reason}"
    if OLD_DRIVER.search(reason):
        return driver_problem(what, trt)
    fix = "finedge doctor shows driver and GPU"
    return SystemProblem(what, expected="a driver and a GPU that CUDA can use", fix=fix)


def driver_problem(what: str, trt: Any) -> SystemProblem:
    """Return the error of a library whose message is an `OLD_DRIVER`."""
    cuda, driver = cuda_major(_package(trt)), driver_version() // 1000
    supported = f"; this one supports CUDA {driver}" if driver else "; none is loaded"
    needed = f"CUDA {cuda} or newer" if cuda else "the CUDA of this TensorRT"
    expected = f"an NVIDIA driver for {needed}{supported}"
    return SystemProblem(what, expected=expected, fix=_fix(trt, cuda, driver))


def _fix(trt: Any, cuda: int, driver: int) -> str:
    """Return what to do; another CUDA binding for Python does not help here."""
    if not driver:
        return "install an NVIDIA driver; a container needs --gpus all, or --runtime nvidia"
    if not cuda or driver >= cuda:
        return "update the driver; on a Jetson, install the JetPack that this TensorRT is part of"
    return driver_fix(_package(trt), version=trt.__version__, cuda=cuda, driver=driver)


def _package(trt: Any) -> str:
    return str(trt.__name__).removesuffix("_bindings")
