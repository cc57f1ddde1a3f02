"""Camera mode: frames come at their own rate and age until they are answered.

They go through the pipeline that `finedge classify` runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost, UsageError
from finedge.measure import percentile, supported
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.replay import FPS, Replay
from finedge.runtime.benchmark.rows import PERCENTILES
from finedge.runtime.sources import CaptureOptions, Source, open_source
from finedge.runtime.sources.address import mask
from finedge.runtime.stream.pipeline import Answer, BatchModel, Pipeline

SETTLE_S = 0.2  # start of each block, not recorded: threads and caches come up
MAX_MISSED = 0.05  # the share of frames that a replay may miss because the machine was busy


@dataclass(frozen=True)
class AnsweredFrame:
    """One answered frame: its index, its capture and answer (monotonic, ns), its times in ms."""

    index: int
    captured_ns: int
    answered_ns: int
    decode: float
    preprocess: float
    infer: float
    post: float

    @property
    def age_ms(self) -> float:
        """From the capture to the top-k."""
        return (self.answered_ns - self.captured_ns) / 1e6

    @property
    def total_ms(self) -> float:
        """Preprocess + infer + post, without the waiting in between."""
        return self.preprocess + self.infer + self.post


Rank = Callable[[NDArray[np.float32]], object]


def watch(
    source: Source,
    model: BatchModel,
    *,
    rank: Rank,
    seconds: float,
    settle_s: float = SETTLE_S,
) -> list[AnsweredFrame]:
    """Answer the frames of an open source; return those after the first `settle_s` seconds.

    Raises:
        SourceLost: not one frame was answered.
    """
    answered: list[AnsweredFrame] = []
    with Pipeline([source], model) as pipeline:
        begin = time.monotonic() + settle_s
        for answer in pipeline:
            if isinstance(answer, Answer):
                ranked_from = time.monotonic_ns()
                frame = _ranked(answer, rank)
                if ranked_from >= begin * 1e9:
                    answered.append(frame)
            if time.monotonic() >= begin + seconds:
                break
    if not answered:
        raise SourceLost(
            f"{source.info.uri}: no frame was answered in {settle_s + seconds:g} s",
            fix="look at it with finedge classify; or measure for longer",
        )
    return answered


def _ranked(answer: Answer, rank: Rank) -> AnsweredFrame:
    """Rank the scores of an answer; return its times."""
    start = time.monotonic_ns()
    rank(answer.scores[None])
    now, frame = time.monotonic_ns(), answer.frame
    return AnsweredFrame(
        frame.index,
        frame.captured_ns,
        now,
        frame.decode_ms,
        answer.preprocess_ms,
        answer.infer_ms,
        (now - start) / 1e6,
    )


@dataclass
class CameraLane(BenchmarkLane):
    """A lane whose frames come by themselves, at `fps` a second.

    They are those of `uri`, or without one the lane's own frames in rotation. `times` has "total"
    as the other modes do (preprocess + infer + post, without the waiting in between), and "age".
    """

    uri: str = ""
    fps: float | None = None
    answered: list[list[AnsweredFrame]] = field(default_factory=list)
    missed: int = 0

    def ask_for(self, seconds: float, *, record: bool) -> list[float]:
        """Watch for `seconds`; return the times in milliseconds."""
        if seconds <= 0:
            return []
        with self._open() as source:
            frames = watch(source, self.classifier, rank=self._rank, seconds=seconds)
        if record:
            self.answered.append(frames)
            self.missed += getattr(source, "missed", 0)
            for frame in frames:
                self._add(
                    frame.total_ms,
                    preprocess=frame.preprocess,
                    infer=frame.infer,
                    post=frame.post,
                    age=frame.age_ms,
                    decode=frame.decode,
                )
        return [frame.total_ms for frame in frames]

    def warm_up(self, seconds: float) -> None:
        """Watch for `seconds`."""
        self.ask_for(seconds, record=False)

    @property
    def decode_ms(self) -> Sequence[float]:
        """How long the decoding of each frame took; a replay decodes nothing."""
        return self.times.samples_ms["decode"] if self.uri else ()

    @property
    def images_per_second(self) -> float:
        """Answers a second."""
        steps = sum(len(block) - 1 for block in self.answered)
        ns = sum(block[-1].answered_ns - block[0].answered_ns for block in self.answered)
        return _rate(steps, ns) or 0.0

    @property
    def offered(self) -> int:
        """How many frames came while recording, answered or not."""
        return self._steps + len(self.answered)

    def camera_record(self) -> Mapping[str, Any]:
        """Return rates, counts of frames, and how old frames were when they were answered."""
        ages = self.times["age"]
        captured_ns = sum(block[-1].captured_ns - block[0].captured_ns for block in self.answered)
        percentiles = {
            f"age_p{p}_ms": round(percentile(ages, p), 4) if supported(p, len(ages)) else None
            for p in PERCENTILES
        }
        return {
            "source": mask(self.uri) or "replay",
            "fps_offered": _rate(self._steps, captured_ns),
            "fps_answered": round(self.images_per_second, 3),
            "offered": self.offered,
            "answered": len(ages),
            "dropped": self.offered - len(ages),
            "missed": self.missed,
            **percentiles,
            "age_max_ms": round(max(ages), 4),
        }

    def problems(self) -> tuple[str, ...]:
        """Return why the frames did not come as they should have."""
        if self.missed <= MAX_MISSED * self.offered:
            return ()
        rate = f"{self.fps or FPS:g} frames a second"
        return (f"the machine was too busy to offer {rate}: {self.missed} were missed",)

    @property
    def _steps(self) -> int:
        """Frames that came after the first of each block."""
        return sum(block[-1].index - block[0].index for block in self.answered)

    def _rank(self, scores: NDArray[np.float32]) -> object:
        return self.classifier.rank(self.classifier.probabilities(scores))

    def _open(self) -> AbstractContextManager[Source]:
        if not self.uri:
            return Replay(self.frames.frames, self.fps or FPS)
        source = open_source(self.uri, capture=CaptureOptions(fps=self.fps))
        if not source.live:
            source.__exit__(None, None, None)
            raise UsageError(
                f"'{self.uri}' is not a live source: it waits until a frame is asked for",
                expected="a camera, a stream or test://",
                fix="--data DIR --fps 30 replays pictures",
            )
        return source


def _rate(steps: int, ns: int) -> float | None:
    return round(1e9 * steps / ns, 3) if ns else None
