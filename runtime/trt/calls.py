"""Calls of TensorRT whose failures become typed errors that quote it.

It reports a failure in three ways: a call returns False or None, the binding raises (`infer_shapes`
RuntimeError, a profile that does not exist ValueError), or an error is only logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.cuda.binding import MEMORY_FIX, OutOfDeviceMemory
from finedge.runtime.machine.packages import failure_text
from finedge.runtime.trt.log import Messages, reported

# What pybind11 makes of C++ exceptions, of arguments, and of values that it cannot convert.
BINDING_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, OverflowError, MemoryError)
FIX = "read its messages in the log; finedge build makes the engine again"


class CallFailed(SystemProblem):
    """A call of TensorRT returned False or nothing: that is how it reports a failure."""


def require(result: Any, call: str) -> None:
    """Raise `CallFailed` where `result` is False or None."""
    if result is None or result is False:
        raise CallFailed(f"TensorRT's {call} failed", fix=FIX)


@contextmanager
def typed_errors(trt: Any, action: str) -> Iterator[Messages]:
    """Turn a failure of TensorRT in the block into a typed error; `action` is what was tried.

    Yields:
        The errors that it logs.

    Raises:
        OutOfDeviceMemory: the GPU's memory is full; TensorRT logged that.
        SystemProblem: any other failure; the text quotes the binding and the first logged error.
    """
    with reported(trt) as messages:
        try:
            yield messages
        except CallFailed as error:
            raise _failure(action, error.what, messages) from error
        except BINDING_ERRORS as error:
            raise _failure(action, failure_text(error), messages) from error


def _failure(action: str, reason: str, messages: Messages) -> SystemProblem:
    quote = next((text.strip() for text in messages.errors if text.strip()), "")
    what = f"cannot {action}: {reason}" + (f": {quote}" if quote else "")
    if messages.out_of_memory:
        return OutOfDeviceMemory(what, fix=MEMORY_FIX)
    return SystemProblem(what, fix=FIX)
