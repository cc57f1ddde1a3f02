"""A lane: a CUDA stream with its own buffers, and a context and a CUDA graph per batch size.

To change a context from which a graph was captured is undefined behaviour, so no context serves two
batch sizes. All contexts of a lane share its scratch memory, because only one runs at a time
(TensorRT, "CUDA Graphs": one context per graph, memory shared across the contexts).
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
from finedge.runtime.cuda.binding import SUCCESS, Cuda
from finedge.runtime.trt.buffers import Buffer, allocate, device_memory
from finedge.runtime.trt.calls import require, typed_errors
from finedge.runtime.trt.context import captures_itself, layer_times, may_infer_shapes, new_context
from finedge.runtime.trt.engine import Engine

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[np.float32]]
# Bytes. TensorRT refuses the address of an empty block.
MIN_SCRATCH = 256


@dataclass(frozen=True)
class BatchPlan:
    """How one batch size runs: a context and its graph (None: each run enqueues the kernels)."""

    context: Any
    graph: Any | None


class ExecutionLane:
    """Runs one batch at a time: `start`, then `finish`. Not for several threads.

    Args:
        engine: what it runs.
        cuda: CUDA, with every status checked.
        mapped: the GPU shares the CPU's memory: buffers are mapped, not copied.
        input_mapped: the same for the inputs alone.
    """

    def __init__(
        self, engine: Engine, *, cuda: Cuda, mapped: bool, input_mapped: bool | None = None
    ) -> None:
        self._engine, self._cuda = engine, cuda
        self._plans: dict[int, BatchPlan] = {}
        self._rows = 0  # of the batch that runs; 0 where none does
        with ExitStack() as stack:
            self._stream = cuda("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
            stack.callback(cuda.release, "cudaStreamDestroy", self._stream)
            self._scratch_size = max(MIN_SCRATCH, int(engine.handle.device_memory_size_v2))
            self._scratch = device_memory(self._scratch_size, cuda=cuda, stack=stack)
            options = dict.fromkeys(engine.outputs, mapped)
            of_inputs = mapped if input_mapped is None else input_mapped
            options |= dict.fromkeys(engine.inputs, of_inputs)
            buffers = [
                allocate(tensor, engine.max_batch, cuda=cuda, mapped=options[tensor], stack=stack)
                for tensor in (*engine.inputs, *engine.outputs)
            ]
            count = len(engine.inputs)
            self._inputs, self._outputs = buffers[:count], buffers[count:]
            stack.callback(self._plans.clear)
            self._stack = stack.pop_all()
        # Also when nobody closes it.
        self._free = weakref.finalize(self, _free, cuda, self._stream, self._stack)

    def start(self, *batch: NDArray[Any]) -> None:
        """Start a batch of at most the engine's largest size; `batch` may be changed at once.

        It has an array [rows, ...] for each input, in the engine's order.
        """
        self._launch(self._fill(*batch))
        self._rows = len(batch[0])

    def finish(self) -> Arrays:
        """Wait for the batch; return float32 [rows, ...] by output name, copies."""
        results = self.results().items()
        return {name: array.astype(np.float32, copy=False) for name, array in results}

    def results(self) -> dict[str, NDArray[Any]]:
        """Wait for the batch; return a copy [rows, ...] of each output in its own dtype."""
        if not self._rows:
            raise UsageError("no batch is under way on this session", expected="an open session")
        rows, self._rows = self._rows, 0
        self._cuda("cudaStreamSynchronize", self._stream)
        return {buffer.tensor.name: buffer.host[:rows].copy() for buffer in self._outputs}

    def profile(self, batch: NDArray[np.uint8], runs: int) -> list[tuple[str, float]]:
        """Return each layer's name and mean milliseconds over `runs`, in the order they run.

        A separate context is timed, layer by layer: those with a graph stay as they are.
        """
        rows = self._fill(batch)
        with typed_errors(self._engine.trt, f"time the layers of a batch of {rows}"):
            context = self._context(rows, graphs=False)
            self._run(context, rows)  # not timed: the first run sets up
            context.profiler = times = layer_times(self._engine.trt)
            for _ in range(runs):
                self._run(context, rows)
        return [(name, ms / runs) for name, ms in times.ms.items()]

    def settle(self) -> None:
        """Wait for the batch that runs, if any, and drop its result."""
        if self._rows:
            self._rows = 0
            self._cuda.release("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Wait for the batch that runs and free everything; a second close does nothing."""
        self._rows = 0
        self._free()

    def _fill(self, *batch: NDArray[Any]) -> int:
        """Copy a batch into the input buffers; return how many rows to run.

        These are more than the batch has where the engine takes no batch that small.
        """
        if self._rows:
            raise UsageError(
                "a batch is still under way on this session",
                expected="the answers of stream() before the next call",
            )
        for buffer, array in zip(self._inputs, batch, strict=True):
            buffer.host[: len(array)] = array
        return max(len(batch[0]), self._engine.min_batch)

    # --- one plan per batch size ---

    def _launch(self, rows: int) -> None:
        if rows not in self._plans:
            self._plans[rows] = self._plan(rows)
        plan = self._plans[rows]
        if plan.graph is None:
            self._enqueue(plan.context, rows)
        else:
            self._cuda("cudaGraphLaunch", plan.graph, self._stream)

    def _plan(self, rows: int) -> BatchPlan:
        with typed_errors(self._engine.trt, f"prepare batches of {rows}"):
            context = self._context(rows)
            self._run(context, rows)  # a new shape defers work, which must not be captured
        graph = None if captures_itself(self._engine) else self._capture(context, rows)
        return BatchPlan(context, graph)

    def _context(self, rows: int, *, graphs: bool = True) -> Any:
        """Return a new context that reads and writes this lane's memory for batches of `rows`."""
        context = new_context(self._engine, graphs=graphs)
        context.set_device_memory(self._scratch, self._scratch_size)
        if context.active_optimization_profile != 0:
            done = context.set_optimization_profile_async(0, int(self._stream))
            require(done, "set_optimization_profile_async(0)")
        for tensor in self._engine.inputs:
            shape = (rows, *tensor.row)
            done = context.set_input_shape(tensor.name, shape)
            require(done, f"set_input_shape({tensor.name}, {shape})")
        for buffer in (*self._inputs, *self._outputs):
            name = buffer.tensor.name
            done = context.set_tensor_address(name, buffer.device_address)
            require(done, f"set_tensor_address({name})")
        if may_infer_shapes(self._engine.trt):
            missing = context.infer_shapes()
            require(not missing, f"infer_shapes, which misses {', '.join(missing)},")
        return context

    def _run(self, context: Any, rows: int) -> None:
        """Run a context that no plan keeps, and wait, also where a call fails.

        The error drops the context, which must not end before its kernels do.
        """
        try:
            self._enqueue(context, rows)
            self._cuda("cudaStreamSynchronize", self._stream)
        except BaseException:
            self._cuda.release("cudaStreamSynchronize", self._stream)
            raise

    def _enqueue(self, context: Any, rows: int) -> None:
        """Put copies and kernels on the stream."""
        kind = self._cuda.api.cudaMemcpyKind
        for buffer in self._inputs:
            self._copy(buffer, rows, kind.cudaMemcpyHostToDevice)
        require(context.execute_async_v3(int(self._stream)), "execute_async_v3")
        for buffer in self._outputs:
            self._copy(buffer, rows, kind.cudaMemcpyDeviceToHost)

    def _copy(self, buffer: Buffer, rows: int, kind: Any) -> None:
        if buffer.mapped:
            return
        source, target = buffer.host_address, buffer.device_address
        if kind == self._cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            source, target = target, source
        self._cuda("cudaMemcpyAsync", target, source, buffer.tensor.size(rows), kind, self._stream)

    # --- the graph ---

    def _capture(self, context: Any, rows: int) -> Any | None:
        """Return the graph of one run, or None where this engine cannot be captured.

        It then computes the same, but launches kernel by kernel.
        """
        try:
            graph = self._record(context, rows)
            try:
                executable = self._cuda("cudaGraphInstantiate", graph, 0)
            finally:
                self._cuda.release("cudaGraphDestroy", graph)
        except SystemProblem as error:
            log.warning(
                "no CUDA graph for batches of %d: each run enqueues its kernels instead (%s)",
                rows,
                error.what,
            )
            return None
        self._stack.callback(self._cuda.release, "cudaGraphExecDestroy", executable)
        return executable

    def _record(self, context: Any, rows: int) -> Any:
        """Return the graph of what a run puts on the stream; nothing runs during the capture."""
        # Thread-local: CUDA calls of other threads during the capture are allowed.
        mode = self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda("cudaStreamBeginCapture", self._stream, mode)
        try:
            self._enqueue(context, rows)
        except BaseException:
            # The stream must leave its capture, also an invalid one.
            ending = self._cuda.try_call("cudaStreamEndCapture", self._stream)
            if ending.status == SUCCESS:
                self._cuda.release("cudaGraphDestroy", *ending.values)
            raise
        return self._cuda("cudaStreamEndCapture", self._stream)


def _free(cuda: Cuda, stream: Any, stack: ExitStack) -> None:
    """Free everything after the work on the stream, which reads the memory and the graphs."""
    cuda.release("cudaStreamSynchronize", stream)
    stack.close()
