"""Capture, preprocessing and inference side by side: each stage has its own thread.

A stage hands over one item at a time, and begins the next only when that was taken. So at most one
prepared batch waits while one is in inference. An answer for a live source is therefore never older
than one frame period + max(preprocess, inference) + inference, however slow the stages are.
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
from finedge.runtime.stream.stream import NO_SIGNAL_MS, POLL_S, FrameCounts, Stream

log = logging.getLogger(__name__)

FINISH_S = 2.0  # for the work in hand when a stop is asked for


class BatchModel(Protocol):
    """What works on the frames, for example a `Classifier`.

    Each method is called from one thread. Both run at the same time.
    """

    def prepare(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Preprocess frames into the network's input."""

    def scores(
        self, batch: NDArray[np.uint8], *, frames: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Return float32 [B, classes] for a prepared batch, and the frames it was made of."""


@dataclass(frozen=True)
class Answer:
    """The scores of a frame of source number `stream`: float32 [classes].

    The times are wall times in ms. Each frame of a batch waited for all of it.
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
class FrameBatch:
    """Frames (or silences, None) with the number of their source, and the frames' input pixels.

    `images` are the parts of the frames that the pixels were made of, without a copy.
    """

    items: tuple[tuple[int, Frame | None], ...]
    images: tuple[NDArray[np.uint8], ...]
    pixels: NDArray[np.uint8] | None
    preprocess_ms: float


class Pipeline:
    """Iterates the answers for the frames of open sources, in the order of each source.

    A live source gives its newest frame, any other source every frame. Frames that are there at
    the same time go through the model as one batch. An error of a source or a stage is raised
    after the answers that came before it. After `stop` the work in hand is still answered. Leave
    the `with` block to end the threads.

    Args:
        sources: open sources; leave their `with` blocks after this one.
        model: prepares and scores batches.
        no_signal_ms: a silence of a live source, in ms.
        interval_s: at most one frame of a source in this time.
        limit: end after so many frames of all sources together.
        region: the part of each frame that is prepared.

    Examples:
        >>> from finedge.runtime.classifier import Classifier
        >>> from finedge.runtime.sources import open_source
        >>> with (
        ...     open_source("test://") as camera,
        ...     Classifier.open("examples/birds.finedge", variant="fp32") as classifier,
        ...     Pipeline([camera], classifier, limit=2) as pipeline,
        ... ):
        ...     answers = [answer for answer in pipeline if isinstance(answer, Answer)]
        >>> len(answers)
        2
        >>> answers[0].scores.shape == (len(classifier.bundle.spec.labels),)
        True
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: BatchModel,
        *,
        no_signal_ms: float = NO_SIGNAL_MS,
        interval_s: float = 0.0,
        limit: int | None = None,
        region: Region | None = None,
    ) -> None:
        self._model, self._region = model, region
        self._left = float("inf") if limit is None else limit
        self._changed, self._stopping = threading.Condition(), threading.Event()
        self._exits = ExitStack()
        self._streams = [
            Stream(s, no_signal_ms=no_signal_ms, interval_s=interval_s, changed=self._changed)
            for s in sources
        ]
        self._patience_s = min(POLL_S, no_signal_ms / 1e3)
        self._prepared: Slot[FrameBatch] = Slot(every=True)
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
        while self._wait() and (answers := self._answered.take()) is not None:
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
        until = time.monotonic() + FINISH_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not end within %g s", thread.name, FINISH_S)

    @property
    def counts(self) -> tuple[FrameCounts, ...]:
        """The frames captured, used and dropped of each source so far."""
        return tuple(stream.counts for stream in self._streams)

    def stop(self) -> None:
        """End the iteration after the work in hand; any thread or signal handler may call it."""
        self._stopping.set()

    def _wait(self) -> bool:
        """Wait for the next answers; False where a stop was asked for and the model hangs."""
        until = float("inf")
        while not self._answered.ready and time.monotonic() < until:
            self._answered.wait(POLL_S)
            if self._stopping.is_set() and until == float("inf"):
                until = time.monotonic() + FINISH_S
        return self._answered.ready

    def _prepare_all(self) -> None:
        while self._prepared.wait_free() and self._left > 0 and not self._stopping.is_set():
            items = tuple(self._take())
            if items:
                self._prepared.put(self._prepare(items))
            for stream in self._streams:
                stream.raise_error()
            if all(stream.ended for stream in self._streams):
                return
            if not items:
                with self._changed:
                    self._changed.wait_for(self._has_news, self._patience_s)

    def _take(self) -> Iterator[tuple[int, Frame | None]]:
        for number, stream in enumerate(self._streams):
            for frame in stream.poll() if self._left > 0 else ():
                if frame is not None:
                    self._left -= 1
                yield number, frame

    def _has_news(self) -> bool:
        # A stream that ended before the others is ready for ever, but has no news.
        if all(stream.ended for stream in self._streams):
            return True
        return any(stream.ready and not stream.ended for stream in self._streams)

    def _prepare(self, items: tuple[tuple[int, Frame | None], ...]) -> FrameBatch:
        start = time.perf_counter()
        images = [frame.image for _, frame in items if frame is not None]
        if self._region:
            images = [self._region.crop(image) for image in images]
        pixels = self._model.prepare(images) if images else None
        return FrameBatch(items, tuple(images), pixels, 1e3 * (time.perf_counter() - start))

    def _infer_all(self) -> None:
        try:
            while self._answered.wait_free() and (batch := self._prepared.take()) is not None:
                self._answered.put(self._infer(batch))
        finally:
            self._prepared.leave()

    def _infer(self, batch: FrameBatch) -> list[Answer | Silence]:
        start = time.perf_counter()
        pixels, images = batch.pixels, batch.images
        rows = iter(() if pixels is None else self._model.scores(pixels, frames=images))
        infer_ms = 1e3 * (time.perf_counter() - start)
        return [
            Silence(number)
            if frame is None
            else Answer(number, frame, next(rows), batch.preprocess_ms, infer_ms)
            for number, frame in batch.items
        ]


def _thread(
    name: str, work: Callable[[], None], out: Slot[FrameBatch] | Slot[list[Answer | Silence]]
) -> threading.Thread:
    """Return a thread that does `work` and closes `out` with the error of `work`, if any."""

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            error = raised
        finally:
            out.close(error)

    return threading.Thread(target=run, name=f"finedge-{name}", daemon=True)
