"""An open engine: batches in, answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.backend import SessionInfo, check_batch
from finedge.runtime.trt.cuda import Cuda
from finedge.runtime.trt.engine import Engine, rows_of
from finedge.runtime.trt.lane import Arrays, ExecutionLane
from finedge.spec import Spec


class TensorRtSession:
    """Runs an engine on the GPU. The first batch of each size is slow: its CUDA graph is captured then. Not for several threads.

    Args:
        engine: a loaded engine.
        spec: what the bundle says about input and outputs.
        info: what runs.
        cuda: CUDA, checked.
        mapped: the GPU shares the CPU's memory: buffers are mapped, not copied.
    """

    def __init__(
        self, engine: Engine, spec: Spec, *, info: SessionInfo, cuda: Cuda, mapped: bool
    ) -> None:
        self.info = info
        self._engine: Engine | None = engine
        self._spec, self._cuda, self._mapped = spec, cuda, mapped
        self._lanes = [self._lane(engine)]

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 [B, ...] by output name. More frames than the engine's largest batch go in parts."""
        engine = self._check(batch)
        return _joined([self._run(part) for part in rows_of(batch, engine.most)])

    def stream(
        self, batches: Iterable[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Answer batch after batch, in order, with two under way: one is copied while the GPU computes the other.

        The answer of a batch comes after the next two were asked of `batches`. Until the last answer no other call is possible.
        """
        sizes: deque[int] = deque()
        gathered: list[Arrays] = []
        with closing(self._answers(self._parts(batches, sizes))) as answers:
            for answer in answers:
                gathered.append(answer)
                if len(gathered) == sizes[0]:
                    yield _joined(gathered)
                    gathered.clear()
                    sizes.popleft()

    def profile(self, batch: NDArray[np.uint8], runs: int = 20) -> list[tuple[str, float]]:
        """Return the mean milliseconds of each layer, in order; layers timed one by one take longer, so this is no latency.

        Raises:
            UsageError: the batch is larger than the engine takes.
        """
        engine = self._check(batch)
        if len(batch) > engine.most or runs < 1:
            raise UsageError(
                f"{runs} profiled runs of {len(batch)} frames",
                expected=f"at least 1 run of at most {engine.most} frames",
            )
        return self._lanes[0].profile(batch, runs)

    def close(self) -> None:
        """Free the engine and all memory; a second close does nothing."""
        while self._lanes:
            self._lanes.pop().close()
        self._engine = None

    def _lane(self, engine: Engine) -> ExecutionLane:
        return ExecutionLane(engine, cuda=self._cuda, mapped=self._mapped)

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
        self, batches: Iterable[NDArray[np.uint8]], sizes: deque[int]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the parts of all batches; `sizes` receives how many parts each batch has."""
        for batch in batches:
            engine = self._check(batch)
            if len(self._lanes) == 1:
                self._lanes.append(self._lane(engine))
            parts = rows_of(batch, engine.most)
            sizes.append(len(parts))
            yield from parts

    def _answers(self, parts: Iterable[NDArray[np.uint8]]) -> Generator[Arrays, None, None]:
        """Run the parts on two lanes in turn."""
        under_way: deque[ExecutionLane] = deque()
        try:
            for i, part in enumerate(parts):
                answer = under_way.popleft().finish() if len(under_way) == 2 else None
                under_way.append(self._lanes[i % 2])
                under_way[-1].start(part)
                if answer is not None:
                    yield answer
            while under_way:
                yield under_way.popleft().finish()
        finally:
            for lane in under_way:  # after an error, or when the caller wants no more
                lane.settle()


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return (
        parts[0]
        if len(parts) == 1
        else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    )
