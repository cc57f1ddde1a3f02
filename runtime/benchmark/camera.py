"""Camera mode: frames come at their own rate and age until they are answered.

They go through the pipeline that `finedge classify` runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.replay import FPS, Replay
from finedge.runtime.benchmark.rows import PERCENTILES, percentile_or_none
from finedge.runtime.benchmark.watch import AnsweredFrame, Finish, ranking, watch
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.sources import CaptureOptions, Source, open_source
from finedge.runtime.sources.address import mask
from finedge.runtime.stream.objects import ObjectResults
from finedge.runtime.stream.pipeline import Answer, Detections
from finedge.runtime.stream.results import Results

LEARN_S = 1.0  # a finder of motion gives no boxes at first
MAX_MISSED = 0.05  # the share of frames that a replay may miss because the machine was busy


@dataclass
class CameraLane(BenchmarkLane):
    """A lane whose frames come by themselves, at `fps` a second.

    They are those of `uri`, or without one the lane's own frames in rotation. `times` has "total"
    as the other modes do (preprocess + infer + post, without the waiting in between), and "age".
    With a finder "total" has "find" too, and a frame without a thing has neither "preprocess" nor
    "infer". What follows is then what `finedge classify` does: tracks and visits.

    Attributes:
        uri: the source; "" replays the lane's frames.
        fps: the rate; None is what the source gives, or `FPS`.
        finders: one, or none.
        find: what finds, for the report.
        scene: what a replay shows, for the report.
    """

    uri: str = ""
    fps: float | None = None
    finders: Sequence[CameraFinder] = ()
    find: str | None = None
    scene: str = "replay"
    answered: list[list[AnsweredFrame]] = field(default_factory=list)
    missed: int = 0

    def ask_for(self, seconds: float, *, record: bool) -> list[float]:
        """Watch for `seconds`; return the times in milliseconds."""
        if seconds <= 0:
            return []
        with self._open() as source:
            frames = watch(
                source,
                self.classifier,
                finish=self._finish(source),
                seconds=seconds,
                finders=self.finders,
            )
        if record:
            self.answered.append(frames)
            self.missed += getattr(source, "missed", 0)
            for frame in frames:
                self._add(frame.total_ms, **_stages(frame))
        return [frame.total_ms for frame in frames]

    def warm_up(self, seconds: float) -> None:
        """Watch for `seconds`; longer with a finder, which learns the background first."""
        self.ask_for(max(seconds, LEARN_S) if self.finders else seconds, record=False)

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
        percentiles = {f"age_p{p}_ms": percentile_or_none(ages, p) for p in PERCENTILES}
        find_ms = self.times.samples_ms.get("find", ())
        return {
            "source": mask(self.uri) or self.scene,
            "fps_offered": _rate(self._steps, captured_ns),
            "fps_answered": round(self.images_per_second, 3),
            "offered": self.offered,
            "answered": len(ages),
            "dropped": self.offered - len(ages),
            "missed": self.missed,
            **percentiles,
            "age_max_ms": round(max(ages), 4),
            "core_share": self._core_share,
            "find": self.find,
            "find_p50_ms": percentile_or_none(find_ms, 50),
            "find_p95_ms": percentile_or_none(find_ms, 95),
            "idle": sum(frame.is_idle for block in self.answered for frame in block),
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

    @property
    def _core_share(self) -> float | None:
        """CPU time of the process over wall time: what the source computes counts too."""
        cpu_ns = sum(block[-1].cpu_ns - block[0].cpu_ns for block in self.answered)
        wall_ns = sum(block[-1].answered_ns - block[0].answered_ns for block in self.answered)
        return round(cpu_ns / wall_ns, 4) if wall_ns else None

    def _finish(self, source: Source) -> Finish:
        if not self.finders:
            return ranking(self._rank)
        results = ObjectResults(Results(self.classifier, [source]), self.finders)

        def finish(answer: Answer | Detections) -> object:
            assert isinstance(answer, Detections)
            return results(answer)

        return finish

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


def _stages(frame: AnsweredFrame) -> dict[str, float]:
    """Return the times of a frame by stage, in ms, without stages that it did not pass."""
    stages = {"post": frame.post, "age": frame.age_ms, "decode": frame.decode}
    if frame.find is not None:
        stages["find"] = frame.find
    if not frame.is_idle:
        stages |= {"preprocess": frame.preprocess, "infer": frame.infer}
    return stages


def _rate(steps: int, ns: int) -> float | None:
    return round(1e9 * steps / ns, 3) if ns else None
