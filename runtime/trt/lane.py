"""A lane: a stream with buffers of its own, and for each batch size an execution context and the CUDA graph captured from it.

Changing a context under a captured graph is undefined behaviour, so no context serves two batch sizes; all contexts of a lane share
its scratch memory, for only one runs at a time (TensorRT, "CUDA Graphs": one context a graph, memory shared across the contexts).
"""

from __future__ import annotations

import logging
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.trt.buffers import Buffer, allocate, device_memory
from finedge.runtime.trt.cuda import SUCCESS, Cuda
from finedge.runtime.trt.engine import Engine

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[np.float32]]
# TensorRT refuses an address of nothing.
LEAST_SCRATCH = 256


@dataclass(frozen=True)
class Plan:
    """How one batch size runs: a context, and the graph of it (None: its work is enqueued anew each time)."""

    context: Any
    graph: Any | None


class ExecutionLane:
    """Runs one batch at a time: `start`, then `finish`. Not for several threads."""

    def __init__(self, engine: Engine, *, cuda: Cuda, mapped: bool) -> None:
        self._engine, self._cuda = engine, cuda
        self._plans: dict[int, Plan] = {}
        self._rows = 0  # under way
        with ExitStack() as stack:
            self._stream = cuda("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
            stack.callback(cuda.release, "cudaStreamDestroy", self._stream)
            self._scratch_size = max(LEAST_SCRATCH, _scratch_size(engine.handle))
            self._scratch = device_memory(self._scratch_size, cuda=cuda, stack=stack)
            self._input, *self._outputs = (
                allocate(t, engine.most, cuda=cuda, mapped=mapped, stack=stack)
                for t in (engine.input, *engine.outputs)
            )
            stack.callback(self._plans.clear)
            self._stack = stack.pop_all()
        self._free = weakref.finalize(self, self._stack.close)  # also when nobody closes it

    def start(self, batch: NDArray[np.uint8]) -> None:
        """Set a batch of at most the engine's largest size going; `batch` may be changed at once."""
        self._launch(self._fill(batch))
        self._rows = len(batch)

    def finish(self) -> Arrays:
        """Wait for the batch; return float32 [rows, ...] by output name, copies."""
        if not self._rows:
            raise UsageError("no batch is under way on this session", expected="an open session")
        rows, self._rows = self._rows, 0
        self._cuda("cudaStreamSynchronize", self._stream)
        return {b.tensor.name: b.host[:rows].astype(np.float32) for b in self._outputs}

    def profile(self, batch: NDArray[np.uint8], runs: int) -> list[tuple[str, float]]:
        """Return each layer's mean milliseconds over `runs`, in the order they run; a context of its own is timed, layer by layer."""
        rows = self._fill(batch)
        context = self._context(rows, graphs=False)
        self._enqueue(context, rows)  # not timed: the first run sets up
        self._cuda("cudaStreamSynchronize", self._stream)
        context.profiler = times = _layer_times(self._engine.trt)
        for _ in range(runs):
            self._enqueue(context, rows)
            self._cuda("cudaStreamSynchronize", self._stream)
        return [(name, ms / runs) for name, ms in times.ms.items()]

    def settle(self) -> None:
        """Wait for what is under way, if anything is, and forget it."""
        if self._rows:
            self._rows = 0
            self._cuda.release("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free everything; a second close does nothing."""
        self.settle()
        self._free()

    def _fill(self, batch: NDArray[np.uint8]) -> int:
        """Copy a batch to where the GPU finds it; return how many rows to run, more where the engine takes no smaller batch."""
        if self._rows:
            raise UsageError(
                "a batch is still under way on this session",
                expected="the answers of stream() before the next call",
            )
        self._input.host[: len(batch)] = batch
        return max(len(batch), self._engine.least)

    # --- a plan a batch size --------------------------------------------------------------------------------------------

    def _launch(self, rows: int) -> None:
        if rows not in self._plans:
            self._plans[rows] = self._plan(rows)
        plan = self._plans[rows]
        if plan.graph is None:
            self._enqueue(plan.context, rows)
        else:
            self._cuda("cudaGraphLaunch", plan.graph, self._stream)

    def _plan(self, rows: int) -> Plan:
        context = self._context(rows)
        self._enqueue(context, rows)  # what a new shape defers must not be captured
        self._cuda("cudaStreamSynchronize", self._stream)
        return Plan(
            context, None if _captures_itself(self._engine) else self._capture(context, rows)
        )

    def _context(self, rows: int, *, graphs: bool = True) -> Any:
        """Return a new context that reads and writes this lane's memory for batches of `rows`."""
        context = _new_context(self._engine, graphs=graphs)
        _give_scratch(context, self._scratch, self._scratch_size)
        if context.active_optimization_profile != 0:
            _must(
                context.set_optimization_profile_async(0, int(self._stream)),
                "set_optimization_profile_async(0)",
            )
        shape = (rows, *self._engine.input.row)
        _must(
            context.set_input_shape(self._engine.input.name, shape),
            f"set_input_shape({self._engine.input.name}, {shape})",
        )
        for buffer in (self._input, *self._outputs):
            _must(
                context.set_tensor_address(buffer.tensor.name, buffer.device_address),
                f"set_tensor_address({buffer.tensor.name})",
            )
        missing = context.infer_shapes()
        _must(not missing, f"infer_shapes, which misses {', '.join(missing)}")
        return context

    def _enqueue(self, context: Any, rows: int) -> None:
        """Put copies and kernels on the stream."""
        kind = self._cuda.api.cudaMemcpyKind
        self._copy(self._input, rows, kind.cudaMemcpyHostToDevice)
        _must(context.execute_async_v3(int(self._stream)), "execute_async_v3")
        for buffer in self._outputs:
            self._copy(buffer, rows, kind.cudaMemcpyDeviceToHost)

    def _copy(self, buffer: Buffer, rows: int, kind: Any) -> None:
        if buffer.mapped:
            return
        ends = (buffer.host_address, buffer.device_address)
        source, target = (
            ends if kind == self._cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice else ends[::-1]
        )
        self._cuda("cudaMemcpyAsync", target, source, buffer.tensor.size(rows), kind, self._stream)

    # --- the graph ------------------------------------------------------------------------------------------------------

    def _capture(self, context: Any, rows: int) -> Any | None:
        """Return the graph of one run, or None where this engine cannot be captured: it then runs the same, launch by launch."""
        try:
            graph = self._record(context, rows)
            try:
                executable = self._cuda("cudaGraphInstantiate", graph, 0)
            finally:
                self._cuda.release("cudaGraphDestroy", graph)
        except SystemProblem as error:
            log.warning(
                "no CUDA graph for batches of %d, each run enqueues its kernels instead: %s",
                rows,
                error.what,
            )
            return None
        self._stack.callback(self._cuda.release, "cudaGraphExecDestroy", executable)
        return executable

    def _record(self, context: Any, rows: int) -> Any:
        """Return what a run puts on the stream, as a graph; nothing runs meanwhile."""
        # Thread-local: what other threads ask of CUDA meanwhile is no fault.
        self._cuda(
            "cudaStreamBeginCapture",
            self._stream,
            self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        try:
            self._enqueue(context, rows)
        except BaseException:
            status, graph = self._cuda.api.cudaStreamEndCapture(
                self._stream
            )  # the stream must leave its capture, also a spoilt one
            if int(status) == SUCCESS:
                self._cuda.release("cudaGraphDestroy", graph)
            raise
        return self._cuda("cudaStreamEndCapture", self._stream)


def _captures_itself(engine: Engine) -> bool:
    """Tell whether the library makes CUDA graphs by itself, as TensorRT for RTX does: it swaps kernels, and captures again."""
    return hasattr(engine.trt, "CudaGraphStrategy")


def _new_context(engine: Engine, *, graphs: bool) -> Any:
    trt, handle = engine.trt, engine.handle
    how = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if _captures_itself(engine):
        config = handle.create_runtime_config()
        config.set_execution_context_allocation_strategy(how)
        config.cuda_graph_strategy = (
            trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if graphs else trt.CudaGraphStrategy.DISABLED
        )
        # Compiled before the first answer, or the first answers would come from slower kernels.
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        how = config
    context = handle.create_execution_context(how)
    _must(context is not None, "create_execution_context")
    return context


def _scratch_size(handle: Any) -> int:
    # The names with sizes came during 10.x, those without went with 11.
    return int(
        handle.device_memory_size_v2
        if hasattr(handle, "device_memory_size_v2")
        else handle.device_memory_size
    )


def _give_scratch(context: Any, pointer: int, size: int) -> None:
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(pointer, size)
    else:
        context.device_memory = pointer


def _layer_times(trt: Any) -> Any:
    """Return a profiler whose `ms` adds up each layer's milliseconds."""

    class LayerTimes(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms[layer_name] = self.ms.get(layer_name, 0.0) + ms

    return LayerTimes()


def _must(done: bool, call: str) -> None:
    """Refuse the False by which TensorRT says that a call failed."""
    if not done:
        raise SystemProblem(
            f"TensorRT's {call} failed",
            fix="its own words are in the log; finedge build makes the engine again",
        )
