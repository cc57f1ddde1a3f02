"""Capture, preprocessing and inference side by side: each stage has a thread and hands over one item at a time.

A stage begins only when what it made last was taken. So at most one prepared batch waits while one is in inference: of a live source
an answer is never older than one period + max(preprocess, inference) + inference, however slow the stages are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.sources import Frame, Source
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.slot import Slot
from finedge.runtime.stream.stream import NO_SIGNAL_MS, POLL_S, Counts, Stream

log = logging.getLogger(__name__)

UNDER_WAY_S = 2.0  # for what a stop finds under way


class Stages(Protocol):
    """What works on the frames: a `Classifier`, or a pretence. Each method is called from one thread, the two at the same time."""

    def prepare(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Make the network's input of frames."""

    def scores(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [B, classes] for a prepared batch."""


@dataclass(frozen=True)
class Answer:
    """What the model said of a frame of source number `stream`: float32 [classes].

    The times are wall times in ms that every frame of its batch waited for.
    """

    stream: int
    frame: Frame
    scores: NDArray[np.float32]
    preprocess_ms: float
    infer_ms: float


@dataclass(frozen=True)
class Silence:
    """Source number `stream`, a live one, gave no frame for too long."""

    stream: int


@dataclass(frozen=True)
class Batch:
    """Frames (or silences) by the number of their source, and the network's input for the frames."""

    taken: tuple[tuple[int, Frame | None], ...]
    pixels: NDArray[np.uint8] | None
    preprocess_ms: float


class Pipeline:
    """Iterates the answers for the frames of open sources: the newest of live ones, every one of others, in each source's order.

    Frames that are there at the same time go through the model as one batch. An error of a source or a stage is raised here, behind the
    answers that came before it. After `stop` what is under way is still answered. Leave the `with` block to end the threads.

    Args:
        sources: open sources; leave their `with` blocks after this one.
        stages: prepares and scores batches.
        no_signal_ms: a silence of a live source, in ms.
        interval_s: at most one frame of a source in this time.
        limit: end after so many frames of all sources together.
        region: the part of each frame that is prepared.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stages: Stages,
        *,
        no_signal_ms: float = NO_SIGNAL_MS,
        interval_s: float = 0.0,
        limit: int | None = None,
        region: Region | None = None,
    ) -> None:
        self._stages, self._region, self._left = (
            stages,
            region,
            float("inf") if limit is None else limit,
        )
        self._changed, self._stopping, self._exits = (
            threading.Condition(),
            threading.Event(),
            ExitStack(),
        )
        self._streams = [
            Stream(s, no_signal_ms=no_signal_ms, interval_s=interval_s, changed=self._changed)
            for s in sources
        ]
        self._patience_s = min(POLL_S, no_signal_ms / 1e3)
        self._prepared: Slot[Batch] = Slot(every=True)
        self._answered: Slot[list[Answer | Silence]] = Slot(every=True)
        self._threads = [
            _thread("prepare", self._prepare_all, self._prepared),
            _thread("infer", self._infer_all, self._answered),
        ]

    def __enter__(self) -> Pipeline:
        for stream in self._streams:
            self._exits.enter_context(stream)
            stream.start()
        for thread in self._threads:
            thread.start()
        return self

    def __iter__(self) -> Iterator[Answer | Silence]:
        while self._waited() and (answers := self._answered.take()) is not None:
            yield from answers

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._answered.leave()
        self._prepared.leave()
        for stream in self._streams:
            stream.leave()
        self._exits.close()
        until = time.monotonic() + UNDER_WAY_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not end within %g s", thread.name, UNDER_WAY_S)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """The frames captured, used and dropped of each source so far."""
        return tuple(stream.counts for stream in self._streams)

    def stop(self) -> None:
        """End the iteration behind what is under way; safe to call from a signal handler and from any thread."""
        self._stopping.set()

    def _waited(self) -> bool:
        """Wait for the next result; False where a stop was asked for and the model hangs."""
        until = float("inf")
        while not self._answered.ready and time.monotonic() < until:
            self._answered.wait(POLL_S)
            if self._stopping.is_set() and until == float("inf"):
                until = time.monotonic() + UNDER_WAY_S
        return self._answered.ready

    def _prepare_all(self) -> None:
        while self._prepared.wait_free() and self._left > 0 and not self._stopping.is_set():
            taken = tuple(self._take())
            if taken:
                self._prepared.put(self._prepare(taken))
            for stream in self._streams:
                stream.raise_error()
            if all(stream.ended for stream in self._streams):
                return
            if not taken:
                with self._changed:
                    self._changed.wait_for(self._news, self._patience_s)

    def _take(self) -> Iterator[tuple[int, Frame | None]]:
        for number, stream in enumerate(self._streams):
            for frame in stream.poll() if self._left > 0 else ():
                self._left -= frame is not None
                yield number, frame

    def _news(self) -> bool:
        # One that ended before the others is no news.
        return any(s.ready and not s.ended for s in self._streams) or all(
            s.ended for s in self._streams
        )

    def _prepare(self, taken: tuple[tuple[int, Frame | None], ...]) -> Batch:
        images = [frame.image for _, frame in taken if frame is not None]
        start = time.perf_counter()
        pixels = (
            self._stages.prepare([self._region.crop(i) for i in images] if self._region else images)
            if images
            else None
        )
        return Batch(taken, pixels, 1e3 * (time.perf_counter() - start))

    def _infer_all(self) -> None:
        try:
            while self._answered.wait_free() and (batch := self._prepared.take()) is not None:
                self._answered.put(self._infer(batch))
        finally:
            self._prepared.leave()

    def _infer(self, batch: Batch) -> list[Answer | Silence]:
        start = time.perf_counter()
        rows = iter(() if batch.pixels is None else self._stages.scores(batch.pixels))
        times = batch.preprocess_ms, 1e3 * (time.perf_counter() - start)
        return [
            Silence(number) if frame is None else Answer(number, frame, next(rows), *times)
            for number, frame in batch.taken
        ]


def _thread(
    name: str, work: Callable[[], None], out: Slot[Batch] | Slot[list[Answer | Silence]]
) -> threading.Thread:
    """Return a thread that does `work` and ends `out` with what `work` raised."""

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            error = raised
        finally:
            out.close(error)

    return threading.Thread(target=run, name=f"finedge-{name}", daemon=True)
