"""The tracks of one source.

A box that no track explains begins a track. It counts once it was seen for `confirm_s`. A track
that is hidden for a moment moves on as it moved. Things that touch become one box: their tracks
share it until they part, and keep their looks. A track that is not seen for `gap_s` has ended. A
thing that comes back before that, and looks the same, is the same track.

The assignment follows SORT (Bewley et al., ICIP 2016), with places measured in sizes of the thing
in place of overlap: at 5 frames a second the boxes of a bird in flight do not overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from finedge.runtime.find.box import Box
from finedge.runtime.track.assign import assign
from finedge.runtime.track.cost import LIMIT, Looks, cost, looks_cost
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.pool import CUT, Pool

DOUBT = 0.85  # cost of a track that may be noise
SHARED = 0.25  # a track shares a box that covers so much of it
# These, and those of cost.py, were chosen by a random search on rendered scenes
# (benchmarks/stream/tracking.py, seeds 0 to 7).
WITHIN = 1.35  # so much more may the looks differ of a thing that did not leave the frame
LARGER = 1.3  # a box so much larger than one track can be two
LEAST_SHARE = 0.04  # of a new box in the looks of its track
FOREIGN_S = 1.5  # for so long, where only one is known
HIDDEN_S = 1.3  # for so long a thing may be before or behind another
# A box so much larger than its track, and so different in its looks, holds something else too.
FOREIGN = ((1.8, 0.0), (1.3, 3.0), (0.9, 5.0))


@dataclass(frozen=True)
class TrackRule:
    """Times of a track, in seconds.

    Attributes:
        firm_s: a track may share a box after so long,
        hits: and after so many boxes.
        confirm_s: it counts after so long; until then it may turn out to be one that was lost.
        coast_s: a hidden track moves on for so long; after that only its looks bring it back.
        share_s: tracks share one box for at most so long.
        gap_s: a track that is not seen for so long has ended.
        alike: how little looks may differ (`looks_cost`) for a thing that comes back.
    """

    firm_s: float = 0.25
    hits: int = 3
    confirm_s: float = 0.6
    coast_s: float = 1.1
    share_s: float = 5.0
    gap_s: float = 3.0
    alike: float = 3.2


@dataclass(frozen=True)
class Sighting:
    """A box of a frame with its looks.

    `weight` is how much they count, above 0 and at most 1. `cut` tells that the box touches the
    edge of the frame.
    """

    box: Box
    looks: Looks
    weight: float = 1.0
    cut: bool = False


@dataclass(eq=False)
class Track:
    """One thing.

    `began` and `seen_at` are of its first and last frame, in s. `shares_since` is when it began to
    share a box, `shared` is that box, and `apart_at` when it was last larger than this thing.
    """

    number: int
    state: Kinematics
    looks: Looks
    began: float
    seen_at: float
    weight: float
    cut: bool
    hits: int = 1
    confirmed: bool = False
    shares_since: float | None = None
    apart_at: float = -math.inf
    shared: Box | None = None
    pool: Pool = field(default_factory=Pool)

    @property
    def shown_at(self) -> float:
        """When it was last seen alone, or in a box that was large enough for two."""
        return max(self.state.own_at, self.apart_at)

    def is_near(self, seconds: float, rule: TrackRule) -> bool:
        """Whether its place still says something."""
        return seconds - self.seen_at <= rule.coast_s


@dataclass(frozen=True)
class Match:
    """A box of the frame, by its place in the frame's list, and a track that is there.

    `alone` is False where several tracks share the box.
    """

    box: int
    track: Track
    alone: bool = True


@dataclass
class Tracker:
    """Assigns the boxes of one frame after another to tracks.

    `ended` holds the confirmed tracks that the last call ended.
    """

    rule: TrackRule = TrackRule()
    tracks: list[Track] = field(default_factory=list)
    ended: list[Track] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, sightings: Sequence[Sighting], *, seconds: float) -> list[Match]:
        """Take the boxes of the next frame and its time; return who is where.

        Each box has at least one match.
        """
        self._end(seconds)
        for track in self.tracks:
            track.state.predict(seconds)
        pairs = self._assigned(sightings, seconds)
        shares = self._shared(sightings, pairs, seconds)
        matches = []
        for index, sighting in enumerate(sightings):
            matches += self._matches(index, sighting, pairs.get(index), shares, seconds)
        self._drop_doubtful(seconds)
        return matches

    def close(self) -> list[Track]:
        """End every track; return the confirmed ones."""
        tracks, self.tracks = [track for track in self.tracks if track.confirmed], []
        return tracks

    def _end(self, seconds: float) -> None:
        gone = [t for t in self.tracks if seconds - t.seen_at > self.rule.gap_s]
        self.ended = [track for track in gone if track.confirmed]
        self.tracks = [track for track in self.tracks if track not in gone]

    def _drop_doubtful(self, seconds: float) -> None:
        """Drop the tracks that were never confirmed, and are gone again."""
        self.tracks = [
            track
            for track in self.tracks
            if track.confirmed or seconds - track.seen_at <= self._doubt_s(track)
        ]

    def _doubt_s(self, track: Track) -> float:
        return self.rule.coast_s if self._is_firm(track) else 2 * self.rule.firm_s

    def _assigned(self, sightings: Sequence[Sighting], seconds: float) -> dict[int, Track]:
        """Return the track of each box that has one."""
        near = [track for track in self.tracks if track.is_near(seconds, self.rule)]
        costs = np.full((len(near), len(sightings)), np.inf)
        for row, track in enumerate(near):
            for column, sighting in enumerate(sightings):
                looks, box = sighting.looks, sighting.box
                # Where both fit, a thing that is known wins over one that may be noise.
                doubt = 0.0 if self._is_firm(track) else DOUBT
                costs[row, column] = doubt + cost(
                    track.state, track.looks, box=box, box_looks=looks, shared=track.shared
                )
        return {column: near[row] for row, column in assign(costs, limit=LIMIT)}

    def _shared(
        self, sightings: Sequence[Sighting], pairs: dict[int, Track], seconds: float
    ) -> dict[int, list[Track]]:
        """Return the tracks of each box that holds more than one thing."""
        shares = {
            index: [track]
            for index, track in pairs.items()
            if self._is_foreign(track, sightings[index], seconds)
        }
        assigned = {track.number for track in pairs.values()}
        for track in self.tracks:
            if track.number in assigned or not self._may_share(track, seconds):
                continue
            covers = [track.state.covered_by(sighting.box) for sighting in sightings]
            if not covers or max(covers) < SHARED:
                continue
            index = int(np.argmax(covers))
            owner = pairs.get(index, track)
            is_larger = sightings[index].box.area > LARGER * owner.state.area
            if is_larger or (_is_hidden(owner, seconds) and _is_hidden(track, seconds)):
                shares.setdefault(index, [owner] if owner is not track else []).append(track)
        return shares

    def _may_share(self, track: Track, seconds: float) -> bool:
        if track.shares_since is not None:
            return seconds - track.shares_since <= self.rule.share_s
        return self._is_firm(track) and track.is_near(seconds, self.rule)

    def _is_foreign(self, track: Track, sighting: Sighting, seconds: float) -> bool:
        """Tell whether a track's box holds something else too."""
        if track.cut or not self._may_share(track, seconds):
            return False
        if track.shares_since is not None and seconds - track.shares_since > FOREIGN_S:
            return False
        growth = sighting.box.area / track.state.area
        unlike = looks_cost(track.looks, sighting.looks)
        return any(growth > ratio and unlike > looks for ratio, looks in FOREIGN)

    def _matches(
        self,
        index: int,
        sighting: Sighting,
        track: Track | None,
        shares: dict[int, list[Track]],
        seconds: float,
    ) -> list[Match]:
        if index in shares:
            for one in shares[index]:
                _share(one, sighting.box, seconds)
            return [Match(index, one, alone=False) for one in shares[index]]
        if track is None:
            return [Match(index, self._begin(sighting, seconds))]
        return [Match(index, self._follow(track, sighting, seconds))]

    def _begin(self, sighting: Sighting, seconds: float) -> Track:
        state = Kinematics.of(sighting.box, seconds=seconds)
        track = Track(
            next(self._numbers),
            state,
            sighting.looks,
            seconds,
            seconds,
            sighting.weight,
            sighting.cut,
        )
        self.tracks.append(track)
        return track

    def _follow(self, track: Track, sighting: Sighting, seconds: float) -> Track:
        frame_s = seconds - track.state.own_at
        # A part of a thing that a post hides says little of its looks.
        part = min(1.0, sighting.box.area / track.state.area)
        weight = sighting.weight * part
        track.weight += weight
        least = LEAST_SHARE * part * (CUT if sighting.cut else 1.0)
        share = max(least, weight / track.weight)
        track.looks = _blended(track.looks, sighting.looks, weight=share)
        track.state.update(sighting.box, frame_s=frame_s, cut=track.cut)
        track.seen_at, track.cut = seconds, sighting.cut
        track.shares_since = track.shared = None
        track.hits += 1
        if track.confirmed or not self._is_firm(track):
            return track
        track.confirmed = seconds - track.began >= self.rule.confirm_s - 1e-6
        return self._continued(track, sighting, seconds)

    def _is_firm(self, track: Track) -> bool:
        """Whether it is hardly noise."""
        enough_s = track.seen_at - track.began >= self.rule.firm_s - 1e-6
        return track.confirmed or (enough_s and track.hits >= self.rule.hits)

    def _continued(self, track: Track, sighting: Sighting, seconds: float) -> Track:
        """Return the earlier track that a new one continues, or the new one."""
        # While a thing passes a post, both of its parts may have been seen for a moment.
        latest = seconds - 0.4 * (seconds - track.began)
        lost = [t for t in self.tracks if t.confirmed and t.shown_at < latest]
        excess = [self._unlikeness(t, track, sighting) for t in lost]
        if not excess or min(excess) > 0:
            return track
        earlier = lost[int(np.argmin(excess))]
        self.tracks.remove(track)
        earlier.state, earlier.looks, earlier.seen_at = track.state, track.looks, track.seen_at
        earlier.hits, earlier.weight = earlier.hits + track.hits, earlier.weight + track.weight
        earlier.cut = track.cut
        earlier.shares_since, earlier.shared, earlier.apart_at = None, None, -math.inf
        earlier.pool.absorb(track.pool)
        return earlier

    def _unlikeness(self, lost: Track, track: Track, sighting: Sighting) -> float:
        """Return by how much a track looks too different to be a lost one; 0 or less: the same.

        Its newest box may look more like it: in the first ones it came into the frame.
        """
        costs = [looks_cost(lost.looks, looks) for looks in (track.looks, sighting.looks)]
        # What was lost within the frame must still be there: its looks may differ more.
        return min(costs) - self.rule.alike * (1.0 if lost.cut else WITHIN)


def _share(track: Track, box: Box, seconds: float) -> None:
    track.seen_at, track.shared = seconds, box
    track.state.keep_within(box)
    if track.shares_since is None:
        track.shares_since = seconds
    if box.area > LARGER * track.state.area:
        track.apart_at = seconds


def _is_hidden(track: Track, seconds: float) -> bool:
    """Tell whether a track shared a box for two a moment ago: it may be before or behind another.

    The box is then no larger than that of one.
    """
    return track.shares_since is not None and seconds - track.apart_at <= HIDDEN_S


def _blended(old: Looks, new: Looks, *, weight: float) -> Looks:
    return Looks(
        np.asarray(old.colours + (new.colours - old.colours) * weight, np.float32),
        old.p + (new.p - old.p) * weight,
    )
