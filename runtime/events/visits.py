"""Opens and closes visits: tracks in, events out."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.events.event import Event, Kind, Name
from finedge.runtime.track.pool import SureRule
from finedge.runtime.track.track import Track
from finedge.wall_time import capture_time

# From pooled probabilities [classes] to the deepest group that is sure, if any.
Coarser = Callable[[NDArray[np.floating]], Name | None]


@dataclass
class _Visit:
    """The captures of the first and the last frame of a track (`time.monotonic_ns`)."""

    first_ns: int
    last_ns: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    has_started: bool = False


@dataclass
class Visits:
    """The visits of one source.

    Attributes:
        source: its name.
        stream: its place on the command line, from 0.
        labels: of the model.
        topk: how many labels an event holds.
        rule: when a label is fixed.
        least_p: the bundle's own threshold; 0 without one.
        coarser: gives a group where the class is not sure.
    """

    source: str
    stream: int
    labels: Sequence[str]
    topk: int = 5
    rule: SureRule = field(default_factory=SureRule)
    least_p: float = 0.0
    coarser: Coarser | None = None
    _visits: dict[int, _Visit] = field(default_factory=dict)

    def see(self, tracks: Iterable[Track], *, captured_ns: int) -> list[Event]:
        """Take the tracks that are in a frame; return the visits that start with it."""
        events = []
        for track in tracks:
            visit = self._visits.setdefault(track.number, _Visit(captured_ns, captured_ns))
            visit.last_ns = captured_ns
            track.pool.fix(self.rule, seconds=track.seen_at - track.began, least_p=self.least_p)
            if track.confirmed and not visit.has_started and track.pool.crop is not None:
                visit.has_started = True
                events.append(self._event("started", track, visit))
        return events

    def end(self, tracks: Iterable[Track]) -> list[Event]:
        """Take confirmed tracks that have ended; return the visits that end with them."""
        events = []
        for track in tracks:
            visit = self._visits.pop(track.number, None)
            if visit is not None and visit.has_started:
                track.pool.fix(self.rule, seconds=math.inf, least_p=self.least_p)
                events.append(self._event("ended", track, visit))
        return events

    def forget(self, tracks: Iterable[Track]) -> None:
        """Forget all but these tracks: what was never confirmed, and what became another track."""
        numbers = {track.number for track in tracks}
        self._visits = {n: visit for n, visit in self._visits.items() if n in numbers}

    def _event(self, kind: Kind, track: Track, visit: _Visit) -> Event:
        pool = track.pool
        assert pool.crop is not None
        assert pool.box is not None
        return Event(
            id=visit.id,
            kind=kind,
            source=self.source,
            stream=self.stream,
            track=track.number,
            # Both by the clock as it is set now: their difference is right whatever happens to it.
            started_at=capture_time(visit.first_ns),
            ended_at=capture_time(visit.last_ns),
            seconds=track.seen_at - track.began,
            frames=pool.frames,
            answer=None if pool.label is None else self._name(pool.p, pool.label),
            coarser=self._coarser(track),
            top=self._top(pool.p),
            box=pool.box,
            crop=pool.crop,
        )

    def _coarser(self, track: Track) -> Name | None:
        if track.pool.label is not None or self.coarser is None:
            return None
        return self.coarser(track.pool.p)

    def _top(self, p: NDArray[np.float64]) -> tuple[Name, ...]:
        best = np.argsort(-p, kind="stable")[: self.topk]
        return tuple(self._name(p, int(index)) for index in best)

    def _name(self, p: NDArray[np.float64], index: int) -> Name:
        return Name(self.labels[index], float(p[index]), index)
