"""Run a session of a mock engine on the real binding; print the results as JSON.

The driver is host_driver.cpp. Run by test_session_on_binding.py in a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import logging
from types import SimpleNamespace

import numpy as np

from finedge.errors import SystemProblem
from finedge.runtime.backend import SessionInfo
from finedge.runtime.cuda.binding import Cuda, OutOfDeviceMemory, binding
from finedge.runtime.cuda.gpu import gpu
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.session import open_session
from tests.runtime.cuda.fakes import FakeCuda
from tests.runtime.trt.conftest import OUTPUTS, SPEC, answer, frames
from tests.runtime.trt.fakes import FakeTrt

DRIVER = ctypes.CDLL("libcuda.so.1")
SIZES = (1, 3, 1, 4, 3, 11)  # 11 goes in parts: the engine takes 4
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_int)
DRIVER.standin_enqueue.argtypes = [ctypes.c_void_p, KERNEL, ctypes.c_int]
DRIVER.standin_alive.restype = ctypes.c_size_t


class HostMemory(FakeCuda):
    """The part of FakeCuda that FakeTrt's contexts call: memory by address, work on a stream."""

    def __init__(self):
        super().__init__()
        self.failures, self._work = [], []
        self._kernel = KERNEL(self._run_work)

    def _run_work(self, number):
        try:
            self._work[number]()
        except Exception as error:  # ctypes would drop it
            self.failures.append(repr(error))

    def resolve(self, address, size):
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def enqueue(self, stream, work):
        self._work.append(work)
        assert DRIVER.standin_enqueue(stream, self._kernel, len(self._work) - 1) == 0

    def _start(self, address, kind):
        return True


def is_right(outputs, batch):
    return all(
        np.array_equal(outputs[name], values.astype(OUTPUTS[name][0]).astype(np.float32))
        for name, values in answer(batch).items()
    )


def session_results():
    """Return which answers are right, and how much is still allocated after the end."""
    memory = HostMemory()
    trt = FakeTrt(memory, answer=answer, outputs=OUTPUTS)
    library = TrtLibrary("tensorrt", "trt", trt, "10.3.0")
    info = SessionInfo("tensorrt", "Stand-in", "x.engine", "fp16")
    session = open_session(b"engine", SimpleNamespace(spec=SPEC), library=library, info=info)
    calls = [is_right(session(frames(n, seed=n)), frames(n, seed=n)) for n in SIZES]
    batches = [frames(n, seed=n + 50) for n in SIZES]
    streamed = [is_right(out, b) for out, b in zip(session.stream(batches), batches, strict=True)]
    used = DRIVER.standin_alive()
    layers = session.profile(frames(2), runs=3)
    session.close()
    return {
        "calls": calls,
        "streamed": streamed,
        "used": used,
        "layers": layers,
        "left": DRIVER.standin_alive(),
        "failures": memory.failures,
    }


def failure(call, *arguments, **options):
    """Return the class and the text of the error that a call raises."""
    try:
        call(*arguments, **options)
    except SystemProblem as error:
        return [type(error).__name__, error.what]
    return None


def main():
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("finedge").addHandler(handler)
    Engine.check = lambda *arguments, **options: None  # the bundle is a name space
    cuda = Cuda(binding())
    result = {
        "gpu": vars(gpu()),
        "session": session_results(),
        "full": failure(cuda.allocate, "cudaMalloc", 1 << 31, size=1 << 31),
        "refused": failure(cuda, "cudaFree", 4096),
        "no error": failure(cuda, "cudaMemGetInfo"),
        "out of memory is": issubclass(OutOfDeviceMemory, SystemProblem),
        "logged": logged,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
