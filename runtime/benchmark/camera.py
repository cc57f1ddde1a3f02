"""Camera mode: frames come at their own rate, through the pipeline that `finedge classify` runs, and age until they are answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost, UsageError
from finedge.measure import percentile, supported
from finedge.runtime.benchmark.modes import TOTAL, Lane
from finedge.runtime.benchmark.rows import PERCENTILES
from finedge.runtime.sources import CaptureOptions, Frame, Source, SourceInfo, open_source
from finedge.runtime.sources.address import mask
from finedge.runtime.stream.pipeline import Answer, BatchModel, Pipeline

FPS = 30.0  # of a replay
SETTLE_S = 0.2  # at the start of each block, while threads and caches come up: not recorded
MAX_MISSED = 0.05  # the share of frames that a replay may miss because the machine was busy


@dataclass
class Replay:
    """A live source of decoded frames (uint8 [H, W, 3] RGB) in rotation, at `fps` a second.

    `captured_ns` is the moment the frame was due, as a camera's would be, not the moment a busy machine came to look. Of several that fell
    due meanwhile the newest is given; the others are `missed`, and leave a gap in the indices.
    """

    frames: Sequence[NDArray[np.uint8]]
    fps: float = FPS
    missed: int = field(default=0, init=False)
    live: bool = field(default=True, init=False)
    info: SourceInfo = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise UsageError(f"--fps {self.fps:g}", expected="a positive number of frames a second")
        height, width = self.frames[0].shape[:2]
        self.info = SourceInfo("replay", "replay", None, width, height, self.fps)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever."""
        start, period_ns, index = time.monotonic_ns(), 1e9 / self.fps, 0
        while True:
            late_ns = time.monotonic_ns() - start - index * period_ns
            if late_ns < 0:
                time.sleep(-late_ns / 1e9)
            self.missed += (skipped := int(max(0.0, late_ns) // period_ns))
            index += skipped
            yield Frame(
                index,
                start + round(index * period_ns),
                self.frames[index % len(self.frames)],
                "replay",
                0.0,
            )
            index += 1

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


@dataclass(frozen=True)
class Seen:
    """One answered frame: its index, when it was captured and answered (monotonic, in ns), and its wall times in ms."""

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


def watch(
    source: Source,
    model: BatchModel,
    *,
    rank: Callable[[NDArray[np.float32]], object],
    seconds: float,
    settle_s: float = SETTLE_S,
) -> list[Seen]:
    """Answer the frames of an open source for `settle_s` + `seconds`; return those of the latter.

    Raises:
        SourceLost: not one frame was answered.
    """
    seen: list[Seen] = []
    with Pipeline([source], model) as pipeline:
        begin = time.monotonic() + settle_s
        for answer in pipeline:
            if isinstance(answer, Answer):
                start = time.monotonic_ns()
                rank(answer.scores[None])
                now, frame = time.monotonic_ns(), answer.frame
                times = frame.decode_ms, answer.preprocess_ms, answer.infer_ms, (now - start) / 1e6
                if start >= begin * 1e9:
                    seen.append(Seen(frame.index, frame.captured_ns, now, *times))
            if time.monotonic() >= begin + seconds:
                break
    if not seen:
        raise SourceLost(
            f"{source.info.uri}: no frame was answered in {settle_s + seconds:g} s",
            fix="look at it with finedge classify; or measure longer",
        )
    return seen


@dataclass
class CameraLane(Lane):
    """A lane whose frames come by themselves: those of `uri`, or its own in rotation, at `fps` a second.

    `times` has "total" as the other modes do (preprocess + infer + post, without the waiting in between), and "age".
    """

    uri: str = ""
    fps: float | None = None
    seen: list[list[Seen]] = field(default_factory=list)
    missed: int = 0

    def ask_for(self, seconds: float, *, record: bool) -> list[float]:
        """Watch for `seconds`; return the times in milliseconds."""
        if seconds <= 0:
            return []
        with self._open() as source:
            seen = watch(source, self.classifier, rank=self._rank, seconds=seconds)
        totals = [s.preprocess + s.infer + s.post for s in seen]
        if record:
            self.seen.append(seen)
            self.missed += getattr(source, "missed", 0)
            for s, total in zip(seen, totals, strict=True):
                for stage, value in (
                    (TOTAL, total),
                    ("preprocess", s.preprocess),
                    ("infer", s.infer),
                    ("post", s.post),
                    ("age", s.age_ms),
                    ("decode", s.decode),
                ):
                    self.times.add(stage, value)
        return totals

    def warm_up(self, seconds: float) -> None:
        """Watch for `seconds`."""
        self.ask_for(seconds, record=False)

    @property
    def decode_ms(self) -> Sequence[float]:
        """What decoding each frame took; nothing is decoded in a replay."""
        return self.times.samples_ms["decode"] if self.uri else ()

    @property
    def images_per_second(self) -> float:
        """Answers a second."""
        return (
            _rate(
                sum(len(block) - 1 for block in self.seen),
                sum(block[-1].answered_ns - block[0].answered_ns for block in self.seen),
            )
            or 0.0
        )

    def of_the_camera(self) -> dict[str, Any]:
        """Return what only this mode has: rates, frames offered, answered and dropped, and how old frames were when they were answered."""
        ages, steps = (
            self.times["age"],
            sum(block[-1].index - block[0].index for block in self.seen),
        )
        offered, answered = steps + len(self.seen), len(ages)
        shown = {
            f"age_p{p}_ms": round(percentile(ages, p), 4) if supported(p, answered) else None
            for p in PERCENTILES
        }
        return {
            "source": mask(self.uri) or "replay",
            "fps_offered": _rate(
                steps, sum(block[-1].captured_ns - block[0].captured_ns for block in self.seen)
            ),
            "fps_answered": round(self.images_per_second, 3),
            "offered": offered,
            "answered": answered,
            "dropped": offered - answered,
            "missed": self.missed,
            **shown,
            "age_max_ms": round(max(ages), 4),
        }

    def problems(self) -> tuple[str, ...]:
        """Return why the frames did not come as they should have."""
        offered = self.of_the_camera()["offered"]
        if self.missed <= MAX_MISSED * offered:
            return ()
        return (
            f"the machine was too busy to offer {self.fps or FPS:g} frames a second: {self.missed} were missed",
        )

    def _rank(self, scores: NDArray[np.float32]) -> object:
        return self.classifier.rank(self.classifier.probabilities(scores))

    def _open(self) -> AbstractContextManager[Source]:
        if not self.uri:
            return Replay(self.frames.frames, self.fps or FPS)
        source = open_source(self.uri, capture=CaptureOptions(fps=self.fps))
        if not source.live:
            source.__exit__(None, None, None)
            raise UsageError(
                f"'{self.uri}' is no live source: it waits for us",
                expected="a camera, a stream or test://",
                fix="--data DIR --fps 30 replays pictures",
            )
        return source


def _rate(steps: int, ns: int) -> float | None:
    return round(1e9 * steps / ns, 3) if ns else None
