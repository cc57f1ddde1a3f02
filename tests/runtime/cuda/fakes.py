"""A CUDA runtime without a GPU; it does the work when a stream is waited for.

Memory is real host memory: a right result was copied from the right place at the right time. Freed
memory is overwritten, and memory that a context still uses may not be freed. `calls` holds the
calls that were made.
"""

# ruff: noqa: N802, N815 - the names are CUDA's and TensorRT's
from __future__ import annotations

import weakref
from enum import IntEnum
from types import SimpleNamespace

import numpy as np

ALIAS = 1 << 52  # what a mapped buffer is called on the device
FAILED = 719  # cudaErrorLaunchFailure
RELEASES = {
    "cudaFree",
    "cudaFreeHost",
    "cudaStreamDestroy",
    "cudaGraphDestroy",
    "cudaGraphExecDestroy",
}


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class FakeCuda:
    """Replaces cuda.bindings.runtime.

    `now` is a clock: work on a stream takes the seconds of `costs`, by the memory of the input.
    Call number `fail_at` (from 0, releases not counted) returns the status `fail_with`. `asked`
    holds the names of the counted calls, `most_busy` the most streams that had work at once.
    """

    cudaStreamNonBlocking, cudaHostAllocDefault, cudaHostAllocMapped = 1, 0, 2
    cudaMemcpyKind, cudaStreamCaptureMode = (
        Kind,
        SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
    )

    def __init__(self, *, devices=1, integrated=False, fail_at=None, fail_with=FAILED):
        self.calls, self.fail_at, self.fail_with = [], fail_at, fail_with
        self.devices, self.count_status = devices, 0
        self.properties = SimpleNamespace(
            name=b"Pretended\0\0",
            major=8,
            minor=7,
            integrated=int(integrated),
            multiProcessorCount=8,
            totalGlobalMem=8 << 30,
        )
        self.memory, self.kinds, self.graveyard = {}, {}, []
        self.queues, self.graphs, self.capture = {}, {}, {}
        self.handles, self.asked, self.most_busy = 1000, [], 0
        self.now, self.costs = 0.0, {"mapped": 0.0, "copied": 0.0}
        self.contexts = weakref.WeakSet()

    def names(self):
        return [name for name, *_ in self.calls]

    def live(self):
        """Return the kinds of what is allocated and not freed, sorted."""
        return sorted(
            [
                *self.kinds.values(),
                *("stream" for _ in self.queues),
                *(kind for kind, _ in self.graphs.values()),
            ]
        )

    def resolve(self, address, size):
        """Return the live bytes at an address of host or device."""
        for start, block in self.memory.items():
            if start <= address and address + size <= start + block.nbytes:
                return block[address - start : address - start + size]
        raise AssertionError(f"nothing of {size} bytes lives at {address}")

    def enqueue(self, stream, work):
        if stream in self.capture:
            self.capture[stream].append(work)
        else:
            self._queue(stream, [work])

    def _queue(self, stream, work):
        self.queues[stream].extend(work)
        self.most_busy = max(self.most_busy, sum(map(bool, self.queues.values())))

    def sizes(self, kind):
        """Return the bytes of each live block of host or device memory, sorted."""
        return sorted(self.memory[address].nbytes for address, k in self.kinds.items() if k == kind)

    # --- the API ---

    def cudaGetDeviceCount(self):
        return (self.count_status, self.devices if not self.count_status else None)

    def cudaGetDeviceProperties(self, device):
        return 0, self.properties

    def cudaDriverGetVersion(self):
        return 0, 12060

    def cudaRuntimeGetVersion(self):
        return 0, 13050

    def cudaMemGetInfo(self):
        return 0, 123 << 20, 8192 << 20

    def cudaGetErrorName(self, status):
        return 0, {2: b"cudaErrorMemoryAllocation", 35: b"cudaErrorInsufficientDriver"}.get(
            int(status), b"cudaErrorLaunchFailure"
        )

    def cudaGetErrorString(self, status):
        return 0, b"pretended failure"

    def cudaMalloc(self, size):
        return self._do("cudaMalloc", lambda: self._room(size, "device"), size)

    def cudaHostAlloc(self, size, flags):
        return self._do("cudaHostAlloc", lambda: self._room(size, "host"), size, flags)

    def cudaHostGetDevicePointer(self, host, flags):
        return self._do("cudaHostGetDevicePointer", lambda: host + ALIAS, host, flags)

    def cudaFree(self, pointer):
        return self._do("cudaFree", lambda: self._bury(pointer, "device"), pointer)

    def cudaFreeHost(self, pointer):
        return self._do("cudaFreeHost", lambda: self._bury(pointer, "host"), pointer)

    def cudaStreamCreateWithFlags(self, flags):
        return self._do("cudaStreamCreateWithFlags", lambda: self._handle(self.queues, []), flags)

    def cudaStreamDestroy(self, stream):
        assert stream not in self.capture, "destroyed while it captures"
        assert not self.queues[stream], "destroyed while work runs"
        return self._do("cudaStreamDestroy", lambda: self.queues.pop(stream) and None, stream)

    def cudaStreamSynchronize(self, stream):
        assert stream not in self.capture, "waiting is not allowed in a capture"
        return self._do("cudaStreamSynchronize", lambda: self._run(self.queues[stream]), stream)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        host, device = (source, target) if kind == Kind.cudaMemcpyHostToDevice else (target, source)
        assert (host, device) == (self._start(host, "host"), self._start(device, "device")), (
            "host and device mixed up"
        )

        def work():
            np.copyto(self.resolve(target, size), self.resolve(source, size))
            self.now += self.costs["copied"] if kind == Kind.cudaMemcpyHostToDevice else 0

        return self._do(
            "cudaMemcpyAsync", lambda: self.enqueue(stream, work), kind.name, size, stream
        )

    def cudaStreamBeginCapture(self, stream, mode):
        return self._do("cudaStreamBeginCapture", lambda: self.capture.update({stream: []}), stream)

    def cudaStreamEndCapture(self, stream):
        work = self.capture.pop(stream)  # also where it fails
        return self._do(
            "cudaStreamEndCapture", lambda: self._handle(self.graphs, ("graph", work)), stream
        )

    def cudaGraphInstantiate(self, graph, flags):
        return self._do(
            "cudaGraphInstantiate",
            lambda: self._handle(self.graphs, ("executable", list(self.graphs[graph][1]))),
            graph,
        )

    def cudaGraphLaunch(self, executable, stream):
        return self._do(
            "cudaGraphLaunch",
            lambda: self._queue(stream, self.graphs[executable][1]),
            executable,
            stream,
        )

    def cudaGraphDestroy(self, graph):
        return self._do("cudaGraphDestroy", lambda: self.graphs.pop(graph) and None, graph)

    def cudaGraphExecDestroy(self, executable):
        return self._do(
            "cudaGraphExecDestroy", lambda: self.graphs.pop(executable) and None, executable
        )

    # --- implementation ---

    def _do(self, name, action, *arguments):
        self.calls.append((name, *arguments))
        if name not in RELEASES:
            self.asked.append(name)
            if len(self.asked) - 1 == self.fail_at:
                return self.fail_with, None
        value = action()
        return (0,) if value is None else (0, value)

    def _room(self, size, kind):
        block = np.full(size + 256, 0xAA, np.uint8)
        block = block[-block.ctypes.data % 256 :][:size]
        address = block.ctypes.data
        self.memory[address], self.kinds[address] = block, kind
        return address

    def _bury(self, pointer, kind):
        assert self.kinds.pop(pointer, None) == kind, f"{pointer} is no live {kind} memory"
        block = self.memory.pop(pointer)
        users = [c for c in self.contexts if c.uses(pointer, block.nbytes)]
        assert not users, "freed while a context uses it"
        block[:] = 0xDD
        self.graveyard.append(block)

    def _handle(self, table, value):
        self.handles += 1
        table[self.handles] = value
        return self.handles

    def _start(self, address, kind):
        return next(
            (
                a
                for a, k in self.kinds.items()
                if k == kind and a <= address < a + self.memory[a].nbytes
            ),
            None,
        )

    @staticmethod
    def _run(queue):
        while queue:
            queue.pop(0)()


class RaisingCuda(FakeCuda):
    """A binding before 12.9 on a machine without libcuda: calls raise RuntimeError.

    The texts are those of cuda-python 12.6.2 and cuda-bindings 12.8.0. The first call looks for the
    library, later ones for its functions.
    """

    looked = False

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        needs_library = name not in ("cudaRuntimeGetVersion", "cudaGetErrorName")
        return self._raise if callable(method) and name[:4] == "cuda" and needs_library else method

    def _raise(self, *arguments):
        if self.looked:
            raise RuntimeError('Function "cuInit" not found')
        self.looked = True
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    def cudaGetErrorName(self, status):
        return super().cudaGetErrorName(status.value)  # a plain int raises AttributeError
