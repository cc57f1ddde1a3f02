"""The results of a run with a finder: a line for each thing of a frame, and visits.

A thing's answer is that of its track: the pooled probabilities of all its frames, with the fixed
label first. `raw_top` is the model's output for this frame alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.classifier import Ranked
from finedge.runtime.events.event import Event
from finedge.runtime.events.visits import Coarser, Visits
from finedge.runtime.find.box import Box
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.find.options import IDLE_S
from finedge.runtime.sinks.base import Result
from finedge.runtime.stream.pipeline import Detections, Silence
from finedge.runtime.stream.results import Results, plain
from finedge.runtime.stream.stream import seconds_of
from finedge.runtime.track.colours import colours_of
from finedge.runtime.track.looks import Looks
from finedge.runtime.track.pool import SureRule, weight_of
from finedge.runtime.track.track import Match, Sighting, TrackRule
from finedge.runtime.track.tracker import Tracker

CROWDED = 0.1  # how much a crop with two things counts when the best one is chosen


@dataclass(frozen=True)
class ObjectRules:
    """When a line is left out, and what a track and a visit are.

    Attributes:
        idle_s: an idle source gives a line at most once in so many seconds.
        track: the times of tracks and visits.
        sure: when a label is fixed.
        coarser: gives a group where the class is not sure.
    """

    idle_s: float = IDLE_S
    track: TrackRule = field(default_factory=TrackRule)
    sure: SureRule = field(default_factory=SureRule)
    coarser: Coarser | None = None


@dataclass
class _SourceObjects:
    """The tracks and visits of one source. `idle_due` is when the next idle line may come, in s."""

    tracker: Tracker
    visits: Visits
    idle_due: float = -math.inf


@dataclass
class ObjectResults:
    """Makes the results of sources whose things are found.

    Args:
        results: makes the lines and counts.
        finders: one for each source.
        rules: of lines, tracks and visits.
    """

    results: Results
    finders: Sequence[CameraFinder]
    rules: ObjectRules = ObjectRules()
    _sources: list[_SourceObjects] = field(init=False)

    def __post_init__(self) -> None:
        self._sources = [self._opened(number) for number in range(len(self.finders))]
        # OpenCV makes its tables of CIELAB at the first call: 0.13 s, and the first thing waits.
        colours_of(np.zeros((2, 2, 3), np.uint8), Box(0, 0, 2, 2))

    def __call__(self, answer: Detections | Silence) -> Result:
        """Return the result for a frame or a silence of the pipeline."""
        if isinstance(answer, Silence):
            result, now = self.results.silence(answer), time.monotonic()
            return Result(result.record, stream=answer.stream, events=self._gone(answer, now))
        start = time.perf_counter()
        p = self._probabilities(answer)
        seconds = seconds_of(self.results.sources[answer.stream], answer.frame)
        matches, events = self._tracked(answer, p, seconds)
        age_ms = self.results.count(answer)
        if not matches:
            return self._idle(answer, seconds, age_ms=age_ms, events=events)
        post_ms = 1e3 * (time.perf_counter() - start)
        lines = tuple(
            self._line(answer, box, p[box], match, age_ms=age_ms, post_ms=post_ms)
            for box, match in matches
        )
        image, stream = answer.frame.image, answer.stream
        return Result(lines[0], image, stream, seconds, things=lines, events=events)

    def close(self) -> tuple[Event, ...]:
        """Return the ends of all visits that are open at the end of the run."""
        return tuple(
            event for source in self._sources for event in source.visits.end(source.tracker.close())
        )

    def _opened(self, number: int) -> _SourceObjects:
        classifier = self.results.classifier
        confidence = classifier.confidence
        visits = Visits(
            self.results.sources[number].info.uri,
            number,
            classifier.bundle.spec.labels,
            topk=classifier.topk,
            rule=self.rules.sure,
            least_p=0.0 if confidence is None else confidence.reject,
            coarser=self.rules.coarser,
        )
        return _SourceObjects(Tracker(self.rules.track), visits)

    def _probabilities(self, answer: Detections) -> NDArray[np.floating]:
        if not answer.boxes:
            return np.zeros((0, 0))
        return self.results.classifier.probabilities(answer.scores)

    def _gone(self, silence: Silence, seconds: float) -> tuple[Event, ...]:
        """Let time pass for the tracks of a source that is silent."""
        source = self._sources[silence.stream]
        source.tracker((), seconds=seconds)
        return tuple(source.visits.end(source.tracker.ended))

    def _tracked(
        self, answer: Detections, p: NDArray[np.floating], seconds: float | None
    ) -> tuple[list[tuple[int, Match | None]], tuple[Event, ...]]:
        """Return who is in which box, and what began or ended. Photos have no tracks."""
        if seconds is None:
            return [(box, None) for box in range(len(answer.boxes))], ()
        source, image = self._sources[answer.stream], answer.frame.image
        sightings = [
            Sighting(box, Looks(colours_of(image, box), row))
            for box, row in zip(answer.boxes, p, strict=True)
        ]
        matches = source.tracker(sightings, seconds=seconds)
        for match in matches:
            if match.alone:
                self._pool(answer, match, p[match.box])
        seen = [match.track for match in matches]
        events = source.visits.see(seen, captured_ns=answer.frame.captured_ns)
        events += source.visits.end(source.tracker.ended)
        source.visits.forget(source.tracker.tracks)
        return [(match.box, match) for match in matches], tuple(events)

    def _pool(self, answer: Detections, match: Match, p: NDArray[np.floating]) -> None:
        image, box = answer.frame.image, answer.boxes[match.box]
        finder = self.finders[answer.stream]
        crop = finder.crop(image, box)
        whole = self.results.classifier.bundle.spec.preprocess.resize
        weight = weight_of(crop, whole=whole, cut=is_cut(box, image.shape))
        match.track.pool.add(p, weight=weight)
        # The crop that people see shows the answer well, too, and this thing alone.
        weight *= float(p[match.track.pool.p.argmax()])
        height, width = image.shape[:2]
        if finder.shows_another(box, answer.boxes, height=height, width=width):
            weight *= CROWDED
        match.track.pool.keep_best(crop, box, weight=weight)

    def _idle(
        self,
        answer: Detections,
        seconds: float | None,
        *,
        age_ms: float,
        events: tuple[Event, ...],
    ) -> Result:
        source, now = self._sources[answer.stream], time.monotonic()
        at = now if seconds is None else seconds
        is_quiet = seconds is not None and at < source.idle_due
        if not is_quiet:
            source.idle_due = at + self.rules.idle_s
        self.results.states[answer.stream].idle += 1
        record = self.results.record(answer, (), age_ms=age_ms, post_ms=0.0)
        record["ms"] |= {"preprocess": None, "infer": None, "post": None}
        image, stream = answer.frame.image, answer.stream
        return Result(record, image, stream, seconds, things=(), is_quiet=is_quiet, events=events)

    def _line(
        self,
        answer: Detections,
        box: int,
        p: NDArray[np.floating],
        match: Match | None,
        *,
        age_ms: float,
        post_ms: float,
    ) -> dict[str, Any]:
        (raw_top,) = self.results.classifier.rank(p[None])
        top = raw_top if match is None else self._answer(match)
        record = self.results.record(answer, top, age_ms=age_ms, post_ms=post_ms)
        place = answer.boxes[box]
        return record | {
            "box": [place.x, place.y, place.w, place.h],
            "track": None if match is None else match.track.number,
            "kind": place.kind,
            "zone": place.zone,
            "raw_top": plain(raw_top),
        }

    def _answer(self, match: Match) -> tuple[Ranked, ...]:
        pool = match.track.pool
        (top,) = self.results.classifier.rank(pool.p[None], first=pool.label)
        return top


def is_cut(box: Box, shape: tuple[int, ...]) -> bool:
    """Tell whether a box touches the edge of the frame."""
    inside = box.x > 0 and box.y > 0
    return not (inside and box.x + box.w < shape[1] and box.y + box.h < shape[0])
