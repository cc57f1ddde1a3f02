"""Answers in, results out. The record of a result is the line that `finedge classify` prints.

The schema of that line is an interface: every consumer reads it. `Results` also keeps the numbers
of the run's summary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.classifier import Classifier, Ranked
from finedge.runtime.sinks.base import Result
from finedge.runtime.sources import Source
from finedge.runtime.stream.decide import Decider, Rules
from finedge.runtime.stream.percentiles import RunPercentiles
from finedge.runtime.stream.pipeline import Answer, Detections, Silence
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.stream import FrameCounts, seconds_of
from finedge.wall_time import capture_time, time_text

SCHEMA = 1


@dataclass
class SourceState:
    """The rules' state and the numbers of one source."""

    decider: Decider
    answered: int = 0
    idle: int = 0
    silences: int = 0
    ages_ms: RunPercentiles = field(default_factory=RunPercentiles)


@dataclass
class Results:
    """Makes the results of some sources, and counts for the summary. Its size does not grow.

    Args:
        classifier: gives probabilities, labels and the threshold.
        sources: the open sources, in the pipeline's order.
        stale_ms: an older answer for a live frame is `stale`; a file's never is.
        rules: how answers are decided.
        region: the part of each frame that the model saw.

    Examples:
        >>> from finedge.runtime.classifier import Classifier
        >>> from finedge.runtime.sources import open_source
        >>> from finedge.runtime.stream.pipeline import Pipeline
        >>> with (
        ...     open_source("test://") as camera,
        ...     Classifier.open("examples/birds.finedge") as classifier,
        ...     Pipeline([camera], classifier, limit=3) as pipeline,
        ... ):
        ...     results = Results(classifier, [camera])
        ...     records = [results(answer).record for answer in pipeline]
        >>> len(records)
        3
        >>> sorted(records[0]["top"][0])
        ['index', 'label', 'p']
    """

    classifier: Classifier
    sources: Sequence[Source]
    stale_ms: float = float("inf")
    rules: Rules = field(default_factory=Rules)
    region: Region | None = None
    states: list[SourceState] = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.states = [SourceState(Decider(self.rules)) for _ in self.sources]

    def __call__(self, answer: Answer | Silence) -> Result:
        """Return the result for an answer or a silence of the pipeline."""
        if isinstance(answer, Silence):
            return self.silence(answer)
        frame, start = answer.frame, time.perf_counter()
        seconds = seconds_of(self.sources[answer.stream], frame)
        p = self.classifier.probabilities(answer.scores[None])
        (model_top,) = self.classifier.rank(p)
        top, decided = model_top, self.rules != Rules()
        if decided:
            top = self._decide(answer, p[0], seconds=seconds)
        post_ms = 1e3 * (time.perf_counter() - start)
        record = self.record(answer, top, age_ms=self.count(answer), post_ms=post_ms)
        if decided:
            record["raw_top"] = plain(model_top)
        model_p = model_top[0].p
        abstained = self.classifier.abstains(model_p)
        return Result(record, frame.image, answer.stream, seconds, model_p, abstained)

    def silence(self, silence: Silence) -> Result:
        """Return the result for a silence."""
        self.states[silence.stream].silences += 1
        name = self.sources[silence.stream].info.uri
        return Result(self._empty_record(name, status="no_signal"), stream=silence.stream)

    def summary(self, counts: Sequence[FrameCounts]) -> str:
        """Return counts, rate and ages, one line for each source.

        An age is the upper edge of a bin, at most 1 % too high.
        """
        passed_s = time.monotonic() - self.started
        lines = []
        for source, count, state in zip(self.sources, counts, self.states, strict=True):
            silences = f", {state.silences} times no signal" if state.silences else ""
            counted = f"{count.captured} frames captured, {state.answered - state.idle} classified"
            if state.idle:
                counted += f", {state.idle} idle (nothing found, not classified)"
            rate = f"{state.answered / passed_s:.1f} frames/s"
            line = f"{source.info.uri}: {counted}, {count.dropped} dropped{silences}; {rate}"
            if source.live:  # the age of a file's frame says nothing
                ages = state.ages_ms
                line += f"; age in ms p50 {ages.text(50)}, p99 {ages.text(99)}"
            lines.append(line)
        return "\n".join(lines)

    def _decide(
        self, answer: Answer, p: NDArray[np.floating], *, seconds: float | None
    ) -> tuple[Ranked, ...]:
        image = self.region.crop(answer.frame.image) if self.region else answer.frame.image
        decider = self.states[answer.stream].decider
        p, label = decider(p, seconds=seconds, image=image)
        (top,) = self.classifier.rank(p[None], first=label)
        return top

    def record(
        self,
        answer: Answer | Detections,
        top: tuple[Ranked, ...],
        *,
        age_ms: float,
        post_ms: float,
    ) -> dict[str, Any]:
        """Return the line of an answer, or of one of the things in a frame; no `top`: idle."""
        frame = answer.frame
        stale_ms = self.stale_ms if self.sources[answer.stream].live else float("inf")
        unknown = bool(top) and self.classifier.abstains(top[0].p)
        status = status_of(age_ms=age_ms, stale_ms=stale_ms, unknown=unknown)
        record = self._empty_record(frame.name, status=status if top else "idle")
        if self.region:
            record["roi"] = list(self.region.pixels(*frame.image.shape[:2]))
        stages = {"decode": frame.decode_ms}
        if isinstance(answer, Detections):
            stages["find"] = answer.find_ms
        stages |= {"preprocess": answer.preprocess_ms, "infer": answer.infer_ms, "post": post_ms}
        return record | {
            "frame": frame.index,
            "captured_at": time_text(capture_time(frame.captured_ns)),
            "age_ms": round(age_ms, 3),
            "top": plain(top),
            "ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        }

    def count(self, answer: Answer | Detections) -> float:
        """Count an answered frame; return its age in ms."""
        state = self.states[answer.stream]
        age_ms = (time.monotonic_ns() - answer.frame.captured_ns) / 1e6
        state.answered += 1
        state.ages_ms.add(age_ms)
        return age_ms

    def _empty_record(self, source: str, *, status: str) -> dict[str, Any]:
        """Return a record without an answer: unknown values are null or empty."""
        session = self.classifier.session.info
        return {
            "schema": SCHEMA,
            "source": source,
            "frame": None,
            "captured_at": None,
            "age_ms": None,
            "status": status,
            "top": [],
            "ms": {"decode": None, "preprocess": None, "infer": None, "post": None},
            "variant": self.classifier.variant,
            "backend": session.backend,
            "file": session.file,
        }


def status_of(*, age_ms: float, stale_ms: float, unknown: bool) -> str:
    """Return `stale` for an answer older than `stale_ms`, else `unknown` or `ok`."""
    if age_ms > stale_ms:
        return "stale"
    return "unknown" if unknown else "ok"


def plain(top: tuple[Ranked, ...]) -> list[dict[str, Any]]:
    """Return ranked labels as plain data."""
    return [{"index": t.index, "label": t.label, "p": round(t.p, 6)} for t in top]
