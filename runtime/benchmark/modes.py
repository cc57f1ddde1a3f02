"""The modes: single-stream asks for the next frame when the last answer is back, offline for a whole batch; camera asks for nothing (`camera.py`).

Where a session can keep two batches under way (`HasStream`), offline does.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError, nearest
from finedge.measure import StageTimes, percentile
from finedge.runtime.backend import HasStream
from finedge.runtime.benchmark.frames import Frame, Frames
from finedge.runtime.classifier import Classifier
from finedge.runtime.telemetry import Telemetry

TOTAL = "total"
CAMERA = "camera"


@dataclass(frozen=True)
class Mode:
    """How a query is made: `batch` frames at once, the next when the last returned."""

    name: str
    batch: int


def parse_modes(names: str, *, batch: int) -> tuple[Mode, ...]:
    """Return the modes of a comma list; `batch` is that of offline."""
    if batch < 1:
        raise UsageError(f"batch {batch}", expected="at least 1")
    known: Mapping[str, Mode] = {
        "single-stream": Mode("single-stream", 1),
        "offline": Mode("offline", batch),
        CAMERA: Mode(CAMERA, 1),
    }
    wanted = [n.strip() for n in names.split(",") if n.strip()]
    unknown = [n for n in wanted if n not in known]
    if unknown or not wanted:
        raise UsageError(
            f"unknown mode '{', '.join(unknown)}'",
            expected=nearest(unknown[0] if unknown else "", known),
        )
    return tuple(known[n] for n in dict.fromkeys(wanted))


@dataclass
class Lane:
    """One row in the making: an open classifier, a mode, its own place in the frames, and every recorded time.

    `times` has the stages of the classifier and "total", the wall time around the whole call; `blocks` has the first sample of each block.
    At the end of each block `clocks_mhz` got the clock of the fastest core, `readings` everything else, and `watts` the mean power of
    the block and what told it.
    """

    bundle: str
    classifier: Classifier
    mode: Mode
    frames: Frames
    times: StageTimes = field(default_factory=StageTimes)
    blocks: list[int] = field(default_factory=list)
    clocks_mhz: list[float | None] = field(default_factory=list)
    readings: list[Telemetry] = field(default_factory=list)
    watts: list[tuple[float, str] | None] = field(default_factory=list)
    position: int = 0

    def query(self, *, record: bool) -> float:
        """Classify the next frames; return the wall time in milliseconds."""
        batch = [self._next() for _ in range(self.mode.batch)]
        start = time.perf_counter()
        predictions = self.classifier(batch)
        total = 1e3 * (time.perf_counter() - start)
        if record:
            ms = predictions[0].ms
            for stage, value in (
                (TOTAL, total),
                ("preprocess", ms.preprocess),
                ("infer", ms.infer),
                ("post", ms.post),
            ):
                self.times.add(stage, value)
        return total

    def ask_for(self, seconds: float, *, record: bool) -> list[float]:
        """Query for `seconds`, once at least; return the times in milliseconds."""
        session = self.classifier.session
        if self.mode.name == "offline" and isinstance(session, HasStream):
            return list(self._stream_for(session, seconds, record=record))
        until = time.perf_counter() + seconds
        times = [self.query(record=record)]
        while time.perf_counter() < until:
            times.append(self.query(record=record))
        return times

    def warm_up(self, seconds: float) -> None:
        """Query for `seconds` at least, and on until two halves agree in their median within 5 %, thrice as long at most."""
        window = seconds / 2
        last = percentile(self.ask_for(window, record=False), 50)
        for _ in itertools.repeat(None, 5):
            this = percentile(self.ask_for(window, record=False), 50)
            if abs(this - last) <= 0.05 * last:
                return
            last = this

    @property
    def decode_ms(self) -> Sequence[float]:
        """What decoding each image took."""
        return self.frames.decode_ms

    @property
    def images_per_second(self) -> float:
        """Over the recorded time."""
        return 1e3 * self.mode.batch * len(self.times[TOTAL]) / sum(self.times[TOTAL])

    def of_the_camera(self) -> dict[str, Any] | None:
        """Return what only camera mode has."""
        return None

    def problems(self) -> tuple[str, ...]:
        """Return why the row should not be believed."""
        return ()

    def _stream_for(self, session: HasStream, seconds: float, *, record: bool) -> Iterator[float]:
        """Keep two batches under way for `seconds`; yield the milliseconds from each answer to the next, the first from the start.

        They add up to the wall time. What of it the device took is not to be seen from here: there is no time "infer".
        """
        prepared: deque[float] = deque()
        last = time.perf_counter()
        for answer in session.stream(self._batches_for(seconds, prepared)):
            received, took = time.perf_counter(), prepared.popleft()
            scores = answer[self.classifier.bundle.spec.main.name]
            self.classifier.rank(self.classifier.probabilities(scores))
            now = time.perf_counter()
            if record:
                for stage, value in (
                    (TOTAL, now - last),
                    ("preprocess", took),
                    ("post", now - received),
                ):
                    self.times.add(stage, 1e3 * value)
            yield 1e3 * (now - last)
            last = now

    def _batches_for(self, seconds: float, prepared: deque[float]) -> Iterator[NDArray[np.uint8]]:
        """Prepare batches for `seconds`, one at least; `prepared` receives the seconds that each took."""
        until = time.perf_counter() + seconds
        for i in itertools.count():
            if i and time.perf_counter() >= until:
                return
            frames = [self._next() for _ in range(self.mode.batch)]
            start = time.perf_counter()
            batch = self.classifier.prepare(frames)
            prepared.append(time.perf_counter() - start)
            yield batch

    def _next(self) -> Frame:
        frame = self.frames.frames[self.position % len(self.frames.frames)]
        self.position += 1
        return frame
