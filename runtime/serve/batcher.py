"""Pictures of several requests that are there at the same time go through the model as one batch.

Each request decodes and preprocesses its own picture, in a thread of its own. What waits for the
model is the network's input, which is small.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.classifier import Classifier
from finedge.runtime.sources.base import Frame, SourceInfo
from finedge.runtime.sources.files import ImageFiles
from finedge.runtime.stream.pipeline import Answer
from finedge.runtime.stream.results import Results

log = logging.getLogger(__name__)

MAX_WAIT_MS = 1000.0
CLOSE_S = 5.0


@dataclass(frozen=True)
class BatchLimits:
    """How pictures form batches.

    Attributes:
        batch: at most so many pictures go through the model together.
        wait_ms: how long a picture waits for others that are on their way, in ms.
        queue: at most so many pictures are in hand; further requests get status 429.
    """

    batch: int = 8
    wait_ms: float = 2.0
    queue: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.queue:
            raise UsageError(
                f"--batch {self.batch} --queue {self.queue}",
                expected="a batch of at least 1, and a queue that holds it",
            )
        if not 0 <= self.wait_ms <= MAX_WAIT_MS:
            raise UsageError(f"--wait-ms {self.wait_ms:g}", expected=f"0 to {MAX_WAIT_MS:g} ms")


DEFAULT_BATCHES = BatchLimits()


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready for the model.

    Attributes:
        name: of the picture, for its line.
        received_ns: `time.monotonic_ns()` when its bytes were there.
        pixels: the network's input, uint8 [H, W, 3].
        decode_ms: the time of decoding.
        preprocess_ms: the time of preprocessing.
    """

    name: str
    received_ns: int
    pixels: NDArray[np.uint8]
    decode_ms: float
    preprocess_ms: float


class Batcher:
    """Answers pictures with the line of `finedge classify`; a thread of its own runs the model.

    Args:
        classifier: open until after `close`.
        limits: how pictures form batches.

    Attributes:
        coming: pictures that are on their way: their bodies are read, or decoded. Only one thread
            changes it. Where there is none, no picture waits for another.
    """

    def __init__(self, classifier: Classifier, limits: BatchLimits = DEFAULT_BATCHES) -> None:
        self.classifier, self.limits, self.coming = classifier, limits, 0
        # What photos on the command line are: not live, so that no line is stale.
        photos = ImageFiles((), SourceInfo("image", "request"))
        self._results = Results(classifier, [photos])
        self._waiting: queue.SimpleQueue[tuple[Prepared, Future[dict[str, Any]]] | None]
        self._waiting = queue.SimpleQueue()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="finedge-batches", daemon=True)
        self._thread.start()

    def submit(self, picture: Prepared) -> Future[dict[str, Any]]:
        """Return the future line of a picture. A cancelled one does not reach the model."""
        future: Future[dict[str, Any]] = Future()
        self._waiting.put((picture, future))
        return future

    def busy_s(self) -> float:
        """Return for how long the model has worked on its batch, in s; 0 where it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Answer what waits, within `CLOSE_S`, and end."""
        self._waiting.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ends = self._collect(first)
            self._busy_since = time.monotonic()
            self._answer([entry for entry in batch if entry[1].set_running_or_notify_cancel()])
            self._busy_since = None
            if ends:
                return

    def _collect(
        self, first: tuple[Prepared, Future[dict[str, Any]]]
    ) -> tuple[list[tuple[Prepared, Future[dict[str, Any]]]], bool]:
        """Return a batch, and whether nothing will follow."""
        batch, until = [first], time.monotonic() + self.limits.wait_ms / 1e3
        while len(batch) < self.limits.batch:
            left_s = max(0.0, until - time.monotonic()) if self.coming else 0.0
            try:
                entry = self._waiting.get(timeout=left_s)
            except queue.Empty:
                return batch, False
            if entry is None:
                return batch, True
            batch.append(entry)
        return batch, False

    def _answer(self, batch: list[tuple[Prepared, Future[dict[str, Any]]]]) -> None:
        if not batch:
            return
        try:
            lines = self._lines([picture for picture, _ in batch])
        except Exception as error:  # each request gets it, and the next batch is tried
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), line in zip(batch, lines, strict=True):
            future.set_result(line)

    def _lines(self, pictures: list[Prepared]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        scores = self.classifier.scores(np.stack([picture.pixels for picture in pictures]))
        infer_ms = 1e3 * (time.perf_counter() - start)
        return [
            self._line(picture, row, infer_ms=infer_ms)
            for picture, row in zip(pictures, scores, strict=True)
        ]

    def _line(
        self, picture: Prepared, scores: NDArray[np.float32], *, infer_ms: float
    ) -> dict[str, Any]:
        frame = Frame(0, picture.received_ns, picture.pixels, picture.name, picture.decode_ms)
        answer = Answer(0, frame, scores, picture.preprocess_ms, infer_ms)
        return self._results(answer).record
