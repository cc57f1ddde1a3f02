"""Sessions on the mock's engines: the bindings are real, and CUDA's memory is the host's."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass, field

import numpy as np
import tensorrt as trt

from finedge.runtime.backend import SessionInfo
from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.session import TensorRtSession
from tests.runtime.cuda.fakes import ALIAS, FakeCuda
from tests.runtime.trt.bindings.inside.library import library
from tests.runtime.trt.conftest import OUTPUTS, SIDE, SPEC, answer

INPUTS = {"frames": (np.dtype(np.uint8), (SIDE, SIDE, 3))}
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint8): 5, "bfloat16": 7}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
SCRATCH = 5000


def engine_bytes(
    *, outputs=OUTPUTS, profile=(1, 1, 4), fixed=None, scratch=SCRATCH, refuse=(), log=""
):
    """Return the text of an engine, as mock/engine.cpp reads it."""
    lines = ["mock engine"]
    for direction, tensors in (("in", INPUTS), ("out", outputs)):
        for name, (dtype, row) in tensors.items():
            shape = " ".join(map(str, (fixed or -1, *row)))
            lines.append(f"tensor {name} {direction} {TYPES[dtype]} {shape}")
    lines += ["profile " + " ".join(map(str, profile)), f"scratch {scratch}", f"log {log}"]
    lines += [f"refuse {call}" for call in refuse]
    return "\n".join(lines).encode()


@dataclass(frozen=True)
class Context:
    """A context that is alive in the mock."""

    id: int

    @property
    def scratch(self):
        return library.context_scratch(self.id)

    @property
    def has_profiler(self):
        return bool(library.context_has_profiler(self.id))

    def uses(self, pointer, size):
        """Tell whether it reads or writes memory of host or device at `pointer`."""
        names = (*INPUTS, *OUTPUTS)
        used = [library.context_address(self.id, name.encode()) or 0 for name in names]
        used.append(self.scratch or 0)
        return any(0 <= a - base < size for a in used for base in (pointer, pointer + ALIAS))


class Contexts:
    """Those that are alive: FakeCuda asks each whether it uses what is freed."""

    def __iter__(self):
        ids = (ctypes.c_int * 64)()
        return iter([Context(i) for i in ids[: library.context_ids(ids, 64)]])

    def __len__(self):
        return int(library.count_contexts())


@dataclass
class Bench:
    """A fake CUDA, an engine of the mock, and what went wrong inside of its callbacks."""

    cuda: FakeCuda
    data: bytes
    refuse_capture: bool = False
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.contexts = self.cuda.contexts = Contexts()

    def load(self):
        return Engine.load(self.data, trt=trt, file="x.engine")

    def open(self):
        library.callback = CALLBACK(self._enqueue)  # kept: the mock has only its address
        library.on_enqueue(library.callback)
        info = SessionInfo("tensorrt", "Pretended", "x.engine", "fp16")
        mapped = bool(self.cuda.properties.integrated)
        return TensorRtSession(self.load(), SPEC, info=info, cuda=Cuda(self.cuda), mapped=mapped)

    def _enqueue(self, context, stream):
        """Put the engine's work on a stream; return 1 where it is refused."""
        try:
            self.cuda.resolve(
                library.context_scratch(context), library.context_scratch_size(context)
            )
            if self.refuse_capture and stream in self.cuda.capture:
                return 1
            self.cuda.calls.append(("execute_async_v3", stream))
            self.cuda.enqueue(stream, lambda: self._compute(context))
        except BaseException as error:
            self.problems.append(repr(error))
            return 1
        return 0

    def _compute(self, context):
        if context not in [living.id for living in self.contexts]:
            self.problems.append(f"context {context} died while its work was on a stream")
            return
        batch = library.context_batch(context)
        is_mapped = library.context_address(context, b"frames") > ALIAS
        self.cuda.now += self.cuda.costs["mapped"] * is_mapped
        for name, values in answer(self._view(context, batch, "frames").copy()).items():
            self._view(context, batch, name)[:] = values

    def _view(self, context, batch, name):
        dtype, row = {**INPUTS, **OUTPUTS}[name]
        address = library.context_address(context, name.encode())
        if address > ALIAS:
            address -= ALIAS
        else:
            assert self.cuda._start(address, "device"), "TensorRT was given a host address"
        size = batch * int(np.prod(row)) * dtype.itemsize
        return self.cuda.resolve(address, size).view(dtype).reshape(batch, *row)


def bench(*, fail_at=None, fail_with=719, integrated=False, refuse_capture=False, **engine):
    """Make a bench: `bench(fail_at=3, refuse=["execute_async_v3"], integrated=True)`."""
    cuda = FakeCuda(integrated=integrated, fail_at=fail_at, fail_with=fail_with)
    return Bench(cuda, engine_bytes(**engine), refuse_capture=refuse_capture)


def left_over():
    """Return what is alive in the mock, and how much died before its users."""
    gc.collect()
    kinds = ("contexts", "engines", "runtimes", "too_early")
    return {kind: getattr(library, f"count_{kind}")() for kind in kinds}
