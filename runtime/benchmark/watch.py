"""Watch a live source through the pipeline of `finedge classify`; note the times of each frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.sources import Source
from finedge.runtime.stream.pipeline import Answer, BatchModel, Detections, Pipeline, Silence

SETTLE_S = 0.2  # start of each block, not recorded: threads and caches come up


@dataclass(frozen=True)
class AnsweredFrame:
    """One answered frame: its index, its capture and answer (monotonic, ns), its times in ms.

    `find` is None without a finder. `is_idle` is a frame in which a finder found nothing: it does
    not reach the model. `cpu_ns` is the CPU time of the process so far.
    """

    index: int
    captured_ns: int
    answered_ns: int
    decode: float
    preprocess: float
    infer: float
    post: float
    find: float | None = None
    is_idle: bool = False
    cpu_ns: int = 0

    @property
    def age_ms(self) -> float:
        """From the capture to the top-k."""
        return (self.answered_ns - self.captured_ns) / 1e6

    @property
    def total_ms(self) -> float:
        """Find + preprocess + infer + post, without the waiting in between."""
        return (self.find or 0.0) + self.preprocess + self.infer + self.post


Finish = Callable[[Answer | Detections], object]


def ranking(rank: Callable[[NDArray[np.float32]], object]) -> Finish:
    """Return what makes a top-k of an answer; `rank` gets float32 [1, classes]."""

    def finish(answer: Answer | Detections) -> object:
        return rank(answer.scores[None])

    return finish


def watch(
    source: Source,
    model: BatchModel,
    *,
    finish: Finish,
    seconds: float,
    settle_s: float = SETTLE_S,
    finders: Sequence[CameraFinder] = (),
) -> list[AnsweredFrame]:
    """Answer the frames of an open source; return those after the first `settle_s` seconds.

    Args:
        source: it is live.
        model: prepares and scores batches.
        finish: makes the result of an answer; its time is the stage "post".
        seconds: for how long frames are recorded.
        settle_s: for how long they are not, before that.
        finders: one, or none. With one, `finish` gets `Detections` in place of `Answer`.

    Raises:
        SourceLost: not one frame was answered.
    """
    answered: list[AnsweredFrame] = []
    with Pipeline([source], model, finders=finders) as pipeline:
        begin = time.monotonic() + settle_s
        for answer in pipeline:
            if not isinstance(answer, Silence):
                answered_from = time.monotonic_ns()
                frame = _finished(answer, finish)
                if answered_from >= begin * 1e9:
                    answered.append(frame)
            if time.monotonic() >= begin + seconds:
                break
    if not answered:
        raise SourceLost(
            f"{source.info.uri}: no frame was answered in {settle_s + seconds:g} s",
            fix="look at it with finedge classify; or measure for longer",
        )
    return answered


def _finished(answer: Answer | Detections, finish: Finish) -> AnsweredFrame:
    """Make the result of an answer; return its times."""
    start = time.monotonic_ns()
    finish(answer)
    now, frame = time.monotonic_ns(), answer.frame
    return AnsweredFrame(
        frame.index,
        frame.captured_ns,
        now,
        frame.decode_ms,
        answer.preprocess_ms,
        answer.infer_ms,
        (now - start) / 1e6,
        find=answer.find_ms if isinstance(answer, Detections) else None,
        is_idle=isinstance(answer, Detections) and not answer.boxes,
        cpu_ns=time.process_time_ns(),
    )
