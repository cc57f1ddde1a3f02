"""An open engine: batches in, answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.backend import SessionInfo, check_batch
from finedge.runtime.cuda.binding import Cuda, binding
from finedge.runtime.cuda.gpu import require_gpu
from finedge.runtime.trt.engine import Engine, rows_of
from finedge.runtime.trt.input_memory import Memory, input_times
from finedge.runtime.trt.lane import Arrays, ExecutionLane
from finedge.spec import Spec

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.runtime.trt.library import TrtLibrary


class TensorRtSession:
    """Runs an engine on the GPU. Not for several threads.

    The first batch of each size is slow, because its CUDA graph is captured then.

    Args:
        engine: a loaded engine.
        spec: what the bundle says about input and outputs.
        info: what runs.
        cuda: CUDA, with every status checked.
        mapped: the GPU shares the CPU's memory: buffers are mapped, not copied.
        input_memory: where the input lies; by default as the outputs do.
    """

    def __init__(
        self,
        engine: Engine,
        spec: Spec,
        *,
        info: SessionInfo,
        cuda: Cuda,
        mapped: bool,
        input_memory: Memory | None = None,
    ) -> None:
        self.info = info
        self._engine: Engine | None = engine
        self._spec, self._cuda, self._mapped = spec, cuda, mapped
        self.input_memory: Memory = input_memory or ("mapped" if mapped else "copied")
        self._lanes = [self._lane(engine, self.input_memory)]

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, ...] by output name.

        A batch that is larger than the engine's largest is run in parts.
        """
        engine = self._check(batch)
        return _joined([self._run(part) for part in rows_of(batch, engine.max_batch)])

    def stream(
        self, batches: Iterable[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Answer batch after batch, in order; two run at once, one copied while one is computed.

        The answer of a batch comes after the next two were taken from `batches`. Until the last
        answer no other call is possible.
        """
        part_counts: deque[int] = deque()
        answers: list[Arrays] = []
        with closing(self._answers(self._parts(batches, part_counts))) as parts:
            for part in parts:
                answers.append(part)
                if len(answers) == part_counts[0]:
                    yield _joined(answers)
                    answers.clear()
                    part_counts.popleft()

    def profile(self, batch: NDArray[np.uint8], runs: int = 20) -> list[tuple[str, float]]:
        """Return each layer's name and mean milliseconds, in the order in which they run.

        Layers that are timed one by one take longer, so the sum is no latency.

        Raises:
            UsageError: the batch is larger than the engine takes.
        """
        engine = self._check(batch)
        if len(batch) > engine.max_batch or runs < 1:
            raise UsageError(
                f"{runs} profiled runs of {len(batch)} frames",
                expected=f"at least 1 run of at most {engine.max_batch} frames",
            )
        return self._lanes[0].profile(batch, runs)

    def choose_input_memory(self, batch: NDArray[np.uint8]) -> dict[Memory, float]:
        """Time a batch with the input in mapped and in copied memory, and keep the faster.

        For a GPU that shares the CPU's memory.

        Returns:
            Median milliseconds by memory.

        Raises:
            OutOfDeviceMemory: there is no room for both; the session stays as it was.
        """
        present = self.input_memory
        other: Memory = "copied" if present == "mapped" else "mapped"
        lane = self._lane(self._check(batch), other)
        try:
            times = input_times({present: self._lanes[0], other: lane}, batch)
            if times[other] < times[present]:
                self.input_memory, self._lanes[0], lane = other, lane, self._lanes[0]
        finally:
            lane.close()
        return times

    def close(self) -> None:
        """Free the engine and all memory; a second close does nothing."""
        while self._lanes:
            self._lanes.pop().close()
        self._engine = None

    def _lane(self, engine: Engine, memory: Memory) -> ExecutionLane:
        input_mapped = memory == "mapped"
        return ExecutionLane(
            engine, cuda=self._cuda, mapped=self._mapped, input_mapped=input_mapped
        )

    def _check(self, batch: NDArray[np.uint8]) -> Engine:
        check_batch(batch, self._spec)
        if self._engine is None:
            raise UsageError(
                f"the session of {self.info.file} is closed", expected="calls before close()"
            )
        return self._engine

    def _run(self, part: NDArray[np.uint8]) -> Arrays:
        self._lanes[0].start(part)
        return self._lanes[0].finish()

    def _parts(
        self, batches: Iterable[NDArray[np.uint8]], part_counts: deque[int]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the parts of all batches; `part_counts` receives how many parts each batch has."""
        for batch in batches:
            engine = self._check(batch)
            if len(self._lanes) == 1:
                self._lanes.append(self._lane(engine, self.input_memory))
            parts = rows_of(batch, engine.max_batch)
            part_counts.append(len(parts))
            yield from parts

    def _answers(self, parts: Iterable[NDArray[np.uint8]]) -> Generator[Arrays, None, None]:
        """Run the parts on two lanes in turn."""
        running: deque[ExecutionLane] = deque()
        try:
            for i, part in enumerate(parts):
                answer = running.popleft().finish() if len(running) == 2 else None
                running.append(self._lanes[i % 2])
                running[-1].start(part)
                if answer is not None:
                    yield answer
            while running:
                yield running.popleft().finish()
        finally:
            for lane in running:  # after an error, or when the caller stops early
                lane.settle()


def open_session(
    data: bytes,
    bundle: Bundle,
    *,
    library: TrtLibrary,
    info: SessionInfo,
    plugin: bool = False,
    input_memory: Memory | None = None,
) -> TensorRtSession:
    """Make a session of an engine's bytes on this machine's GPU.

    Args:
        data: the engine.
        bundle: what it was built from.
        library: what runs it.
        info: what the session reports about itself; versions are added here.
        plugin: the engine contains our plugin.
        input_memory: which one was faster on this GPU before; unknown is None.

    Raises:
        BackendMissing: no GPU is usable here.
        SystemProblem: the library will not run the engine, or memory is short.
        BundleError: its input or outputs are not the bundle's.
    """
    gpu = require_gpu()
    if plugin:
        from finedge.runtime.trt.plugin.register import register

        register(library.trt)  # before deserialising: the engine looks for it by name
    engine = Engine.load(data, trt=library.trt, file=info.file)
    engine.check(bundle, file=info.file)
    versions = {library.trt.__name__: library.version, "driver": gpu.driver}
    return TensorRtSession(
        engine,
        bundle.spec,
        info=replace(info, versions=versions),
        cuda=Cuda(binding()),
        mapped=gpu.integrated,
        input_memory=input_memory,
    )


def _joined(parts: Sequence[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
