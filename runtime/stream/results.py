"""Answers in, classify lines out (the line's schema is the manual of every consumer), and the numbers of the run's summary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from finedge.runtime.classifier import Classifier, Prediction, Ranked, Times
from finedge.runtime.sinks.base import Result
from finedge.runtime.sources import Source
from finedge.runtime.stream.decide import Decider, Rules, ranked, shares, status_of
from finedge.runtime.stream.histogram import Histogram
from finedge.runtime.stream.pipeline import Answer, Silence
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.stream import Counts, seconds

SCHEMA = 1


@dataclass
class Tally:
    """What is counted of one source."""

    decider: Decider
    answered: int = 0
    silences: int = 0
    ages_ms: Histogram = field(default_factory=Histogram)


@dataclass
class Watch:
    """Turns the answers for some sources into results, and keeps what the summary needs; its size does not grow.

    Args:
        classifier: what answered.
        sources: the open sources, in the pipeline's order.
        stale_ms: an answer for a live frame that is older is `stale`; files never are.
        rules: how answers are decided.
        region: what the model saw of each frame.
    """

    classifier: Classifier
    sources: Sequence[Source]
    stale_ms: float = float("inf")
    rules: Rules = field(default_factory=Rules)
    region: Region | None = None
    tallies: list[Tally] = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tallies = [Tally(Decider(self.rules)) for _ in self.sources]

    def __call__(self, answer: Answer | Silence) -> Result:
        """Return the result for what the pipeline gave."""
        if isinstance(answer, Silence):
            self.tallies[answer.stream].silences += 1
            return Result(
                self._line(self.sources[answer.stream].info.uri, None, status="no_signal"),
                stream=answer.stream,
            )
        start, at = time.perf_counter(), seconds(self.sources[answer.stream], answer.frame)
        (own,) = self.classifier.rank(answer.scores[None])
        top = self._decided(answer, seconds=at) if self.rules != Rules() else own
        times = Times(answer.preprocess_ms, answer.infer_ms, 1e3 * (time.perf_counter() - start))
        record = self._answer_line(answer, top, times=times, age_ms=self._tallied(answer)) | (
            {} if top is own else {"raw_top": _plain(own)}
        )
        prediction = Prediction(own, times, self.classifier.rejects(own[0].p))
        return Result(record, answer.frame.image, prediction, answer.stream, at)

    def summary(self, counts: Sequence[Counts]) -> str:
        """Return counts, rate and ages of each source in one line; an age is a bin's upper edge, at most 1 % too high."""
        passed = time.monotonic() - self.started
        return "\n".join(
            f"{source.info.uri}: {count.captured} frames captured, {tally.answered} classified, {count.dropped} dropped{_silences(tally)}; "
            f"{tally.answered / passed:.1f} frames/s; age in ms p50 {tally.ages_ms.text(50)}, p99 {tally.ages_ms.text(99)}"
            for source, count, tally in zip(self.sources, counts, self.tallies, strict=True)
        )

    def _decided(self, answer: Answer, *, seconds: float | None) -> tuple[Ranked, ...]:
        image = self.region.crop(answer.frame.image) if self.region else answer.frame.image
        p, first = self.tallies[answer.stream].decider(
            shares(self.classifier, answer.scores), seconds=seconds, image=image
        )
        return ranked(
            p, first=first, labels=self.classifier.bundle.spec.labels, topk=self.classifier.topk
        )

    def _tallied(self, answer: Answer) -> float:
        """Count an answer; return its age in ms."""
        tally, age_ms = (
            self.tallies[answer.stream],
            (time.monotonic_ns() - answer.frame.captured_ns) / 1e6,
        )
        tally.answered += 1
        tally.ages_ms.add(age_ms)
        return age_ms

    def _answer_line(
        self, answer: Answer, top: tuple[Ranked, ...], *, times: Times, age_ms: float
    ) -> dict[str, Any]:
        frame = answer.frame
        limit_ms = self.stale_ms if self.sources[answer.stream].live else float("inf")
        status = status_of(
            age_ms=age_ms, stale_ms=limit_ms, unknown=self.classifier.rejects(top[0].p)
        )
        stages = {
            "decode": frame.decode_ms,
            "preprocess": times.preprocess,
            "infer": times.infer,
            "post": times.post,
        }
        region = {"roi": list(self.region.pixels(*frame.image.shape[:2]))} if self.region else {}
        return {
            **self._line(frame.name, frame.index, status=status),
            **region,
            "captured_at": _wall_time(frame.captured_ns),
            "age_ms": round(age_ms, 3),
            "top": _plain(top),
            "ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        }

    def _line(self, source: str, frame: int | None, *, status: str) -> dict[str, Any]:
        """Return a line without an answer: what is not known is null or empty."""
        session = self.classifier.session.info
        return {
            "schema": SCHEMA,
            "source": source,
            "frame": frame,
            "captured_at": None,
            "age_ms": None,
            "status": status,
            "top": [],
            "ms": {"decode": None, "preprocess": None, "infer": None, "post": None},
            "variant": self.classifier.variant,
            "backend": session.backend,
            "file": session.file,
        }


def _wall_time(captured_ns: int) -> str:
    # By the clock of now: a board without a battery learns the time of day from the network, after the run has begun.
    at = (time.time_ns() - (time.monotonic_ns() - captured_ns)) / 1e9
    return (
        datetime.fromtimestamp(at, tz=timezone.utc)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _plain(top: tuple[Ranked, ...]) -> list[dict[str, Any]]:
    return [{"index": t.index, "label": t.label, "p": round(t.p, 6)} for t in top]


def _silences(tally: Tally) -> str:
    return f", {tally.silences} times no signal" if tally.silences else ""
