"""One row in the making: queries of an open classifier in one mode, and every recorded time.

Single-stream asks for the next frame after the last answer, offline for a whole batch. Where a
session can keep two batches in flight (`HasStream`), offline does so. Camera mode asks for nothing:
see `camera.py`.
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

from finedge.measure import StageTimes, percentile
from finedge.runtime.backend import HasExits, HasStream
from finedge.runtime.benchmark.frames import Frame, Frames
from finedge.runtime.benchmark.key import Key
from finedge.runtime.benchmark.modes import OFFLINE, Mode
from finedge.runtime.classifier import Classifier
from finedge.runtime.telemetry import Telemetry

TOTAL = "total"
SETTLED = 0.05  # the medians of two halves of a warm-up may differ by this share
MAX_HALVES = 6  # of a warm-up, the first one included


@dataclass
class BenchmarkLane:
    """An open classifier in one mode, with its own place in the rotation of frames.

    Attributes:
        bundle: the bundle's name in the report.
        classifier: what is measured.
        mode: when the next query is made.
        frames: what is classified.
        times: the stages of the classifier and "total", the wall time around the whole call, in ms.
        blocks: the index of the first sample of each block.
        clocks_mhz: the clock of the fastest core at the end of each block.
        readings: every other sensor at the end of each block.
        watts: the mean power of each block in W, and the sensor that measured it.
        position: the number of frames asked for until now.
        exit_counts: of the recorded frames, how many left at each early exit and at the end;
            empty without exits.
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
    exit_counts: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    @property
    def key(self) -> Key:
        """What is measured."""
        early_exit = isinstance(self.classifier.session, HasExits)
        return Key(self.bundle, self.classifier.variant, early_exit)

    @property
    def decode_ms(self) -> Sequence[float]:
        """How long the decoding of each image took."""
        return self.frames.decode_ms

    @property
    def images_per_second(self) -> float:
        """Images over the recorded time."""
        totals = self.times[TOTAL]
        return 1e3 * self.mode.batch * len(totals) / sum(totals)

    @property
    def gpu_mhz(self) -> list[float | None]:
        """The GPU's clock at the end of each block."""
        return [reading.gpu_mhz for reading in self.readings]

    @property
    def on_gpu(self) -> bool:
        """Whether an engine runs; the clock of an idle GPU says nothing about a row of the CPU."""
        return bool(self.classifier.session.info.source)

    def query(self, *, record: bool) -> float:
        """Classify the next frames; return the wall time in milliseconds."""
        batch = [self._next() for _ in range(self.mode.batch)]
        start = time.perf_counter()
        predictions = self.classifier(batch)
        total = 1e3 * (time.perf_counter() - start)
        if record:
            ms = predictions[0].ms
            self._add(total, preprocess=ms.preprocess, infer=ms.infer, post=ms.post)
            self._count_exits()
        return total

    def ask_for(self, seconds: float, *, record: bool) -> list[float]:
        """Query for `seconds`, once at least; return the times in milliseconds."""
        session = self.classifier.session
        if self.mode.name == OFFLINE and isinstance(session, HasStream):
            return list(self._stream_for(session, seconds, record=record))
        until = time.perf_counter() + seconds
        times = [self.query(record=record)]
        while time.perf_counter() < until:
            times.append(self.query(record=record))
        return times

    def warm_up(self, seconds: float) -> None:
        """Query for `seconds` at least, until two halves agree in their median within 5 %.

        After three times as long the warm-up ends in any case.
        """
        window = seconds / 2
        last = percentile(self.ask_for(window, record=False), 50)
        for _ in range(MAX_HALVES - 1):
            median = percentile(self.ask_for(window, record=False), 50)
            if abs(median - last) <= SETTLED * last:
                return
            last = median

    def camera_record(self) -> Mapping[str, Any] | None:
        """Return what only camera mode has."""
        return None

    def problems(self) -> tuple[str, ...]:
        """Return why the row should not be believed."""
        return ()

    def _add(self, total: float, **stages: float) -> None:
        """Record one query: the total and the stages, in milliseconds."""
        self.times.add(TOTAL, total)
        for stage, value in stages.items():
            self.times.add(stage, value)

    def _count_exits(self) -> None:
        """Count where the frames of the last query left."""
        session = self.classifier.session
        if isinstance(session, HasExits):
            counts = np.bincount(session.taken, minlength=session.exit_count + 1)
            self.exit_counts = counts if not len(self.exit_counts) else self.exit_counts + counts

    def _stream_for(self, session: HasStream, seconds: float, *, record: bool) -> Iterator[float]:
        """Keep two batches in flight for `seconds`; yield the milliseconds between two answers.

        The first time is from the start, so they add up to the wall time. How much of it the
        device took cannot be seen on the host: there is no time "infer".
        """
        preparing: deque[float] = deque()
        last = time.perf_counter()
        for outputs in session.stream(self._batches_for(seconds, preparing)):
            received, prepare_s = time.perf_counter(), preparing.popleft()
            scores = outputs[self.classifier.bundle.spec.main.name]
            self.classifier.rank(self.classifier.probabilities(scores))
            now = time.perf_counter()
            total = 1e3 * (now - last)
            if record:
                self._add(total, preprocess=1e3 * prepare_s, post=1e3 * (now - received))
            yield total
            last = now

    def _batches_for(self, seconds: float, preparing: deque[float]) -> Iterator[NDArray[np.uint8]]:
        """Prepare batches for `seconds`, one at least; add the seconds of each to `preparing`."""
        until = time.perf_counter() + seconds
        for i in itertools.count():
            if i and time.perf_counter() >= until:
                return
            frames = [self._next() for _ in range(self.mode.batch)]
            start = time.perf_counter()
            batch = self.classifier.prepare(frames)
            preparing.append(time.perf_counter() - start)
            yield batch

    def _next(self) -> Frame:
        frame = self.frames.frames[self.position % len(self.frames.frames)]
        self.position += 1
        return frame
