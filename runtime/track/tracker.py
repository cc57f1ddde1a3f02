"""The tracks of one source.

The boxes of one frame after another become trails (`trails.py`). A trail that begins is a new
thing, or one that was lost: its looks tell (`identify.py`). That is clear from one box, or decided
after `confirm_s`. Things that touch become one box (`contacts.py`). Their trails break there, and
when they part, the looks tell again who is who.

The tracks answer for a frame when it comes. A frame in which a thing is not sure counts for no
track, and no answer is taken back. The trails follow SORT (Bewley et al., ICIP 2016), with places
measured in sizes of the thing in place of overlap: at 5 frames a second the boxes of a bird in
flight do not overlap.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from finedge.runtime.track.contacts import find_contacts, hold
from finedge.runtime.track.cost import place_cost
from finedge.runtime.track.identify import Candidate, clear_pairs, likely_pairs
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.looks import Memory
from finedge.runtime.track.track import Match, Sighting, Track, TrackRule
from finedge.runtime.track.trails import MISSED, NEAR, Trail, link

EXPECTED_S = 0.7  # for so long a track that is not seen is expected where it flew to


@dataclass
class Tracker:
    """Assigns the boxes of one frame after another to tracks.

    `ended` holds the confirmed tracks that the last call ended.
    """

    rule: TrackRule = field(default_factory=TrackRule)
    tracks: list[Track] = field(default_factory=list)
    ended: list[Track] = field(default_factory=list)
    _trails: list[Trail] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self, sightings: Sequence[Sighting], *, seconds: float) -> list[Match]:
        """Take the boxes of the next frame and its time; return who is where.

        Each box has at least one match.
        """
        self._end(seconds)
        for state in [one.state for one in self.tracks] + [one.state for one in self._trails]:
            state.predict(seconds)
        live = self._continued(sightings, seconds)
        sharing = find_contacts(self.tracks, sightings, live, rule=self.rule, seconds=seconds)
        self._identify(sightings, live, sharing, seconds)
        matches = []
        for index, sighting in enumerate(sightings):
            matches += self._matches(index, sighting, live, sharing.get(index, []), seconds)
        self._drop_doubtful(seconds)
        return matches

    def close(self) -> list[Track]:
        """End every track; return the confirmed ones."""
        tracks, self.tracks = [track for track in self.tracks if track.confirmed], []
        self._trails = []
        return tracks

    def _end(self, seconds: float) -> None:
        # A thing that is back, and not known yet, may be one whose time ends meanwhile.
        new = [t.opened for t in self._trails if not t.is_sure and not t.track.confirmed]
        now = min(seconds, max(min(new, default=math.inf), seconds - 2 * self.rule.confirm_s))
        gone = [track for track in self.tracks if now - track.seen_at > self.rule.gap_s]
        self.ended = [track for track in gone if track.confirmed]
        self.tracks = [track for track in self.tracks if track not in gone]
        self._trails = [trail for trail in self._trails if trail.track in self.tracks]

    def _drop_doubtful(self, seconds: float) -> None:
        """Drop the tracks that were never confirmed, and are gone again."""
        live = [trail.track for trail in self._trails]
        self.tracks = [
            track
            for track in self.tracks
            if track.confirmed or track in live or seconds - track.seen_at <= self._doubt_s(track)
        ]

    def _doubt_s(self, track: Track) -> float:
        return self.rule.coast_s if self.rule.is_firm(track) else 2 * self.rule.firm_s

    def _continued(self, sightings: Sequence[Sighting], seconds: float) -> dict[int, Trail]:
        """Return the trail of each box, old or new."""
        live = link(self._trails, sightings, seconds=seconds)
        broken = [trail for trail in self._trails if trail not in live.values()]
        for trail in broken:
            trail.missed += 1
        self._trails = [trail for trail in self._trails if trail.missed <= MISSED]
        lost = [t for t in self.tracks if t not in [trail.track for trail in live.values()]]
        for index, sighting in enumerate(sightings):
            if index not in live:
                live[index] = self._open(sighting, seconds)
                live[index].heirs = _heirs(sighting, lost, broken, seconds)
        return live

    def _open(self, sighting: Sighting, seconds: float) -> Trail:
        state = Kinematics.of(sighting.box, seconds=seconds)
        memory = Memory.of(sighting.looks, weight=sighting.weight)
        track = self._begin(state, memory, seconds, cut=sighting.cut)
        trail = Trail(state, memory, track, seconds, sighting.cut, unsure_since=seconds)
        self._trails.append(trail)
        return trail

    def _begin(self, state: Kinematics, memory: Memory, seconds: float, *, cut: bool) -> Track:
        number = next(self._numbers)
        track = Track(number, copy.copy(state), copy.copy(memory), seconds, seconds, cut)
        self.tracks.append(track)
        return track

    def _identify(
        self,
        sightings: Sequence[Sighting],
        live: Mapping[int, Trail],
        sharing: Mapping[int, list[Track]],
        seconds: float,
    ) -> None:
        """Find out which tracks the unsure trails are."""
        unsure = [
            Candidate(trail, sightings[i], i not in sharing and self._is_due(trail, seconds))
            for i, trail in live.items()
            if not trail.is_sure
        ]
        for one, track in clear_pairs(unsure, self._free(live)):
            self._give(one.trail, track, seconds)
        due = [one for one in unsure if one.is_due and not one.trail.is_sure]
        for one, track in likely_pairs(due, self._free(live), rule=self.rule):
            self._give(one.trail, track, seconds)
        for one in due:
            if not one.trail.is_sure:
                self._confirm(one.trail, seconds)

    def _free(self, live: Mapping[int, Trail]) -> list[Track]:
        """Return the confirmed tracks that no trail is for sure."""
        taken = [trail.track for trail in live.values() if trail.is_sure]
        return [track for track in self.tracks if track.confirmed and track not in taken]

    def _is_due(self, trail: Trail, seconds: float) -> bool:
        track = trail.track
        if track.confirmed and trail.unsure_since is not None:
            return seconds - trail.unsure_since >= self.rule.decide_s - 1e-6
        enough_s = seconds - track.began >= self.rule.confirm_s - 1e-6
        return enough_s and track.hits + 1 >= self.rule.hits

    def _give(self, trail: Trail, track: Track, seconds: float) -> None:
        """A trail is a track. What was taken for it until now is another thing."""
        trail.unsure_since = None
        trail.holds.clear()
        if trail.track is track:
            return
        for other in self._trails:
            if other.track is track:
                other.track = self._begin(other.state, other.memory, seconds, cut=other.cut)
                other.unsure_since = seconds
        if not trail.track.confirmed:
            self.tracks.remove(trail.track)
            track.pool.absorb(trail.track.pool)
        trail.track = track
        track.state, track.cut = copy.copy(trail.state), trail.cut
        track.seen_at, track.held_since = seconds, None

    def _confirm(self, trail: Trail, seconds: float) -> None:
        """A trail is nothing that was known."""
        if trail.track.confirmed:
            trail.track = self._begin(trail.state, trail.memory, seconds, cut=trail.cut)
        trail.track.confirmed, trail.unsure_since = True, None

    def _matches(
        self,
        index: int,
        sighting: Sighting,
        live: Mapping[int, Trail],
        sharing: Sequence[Track],
        seconds: float,
    ) -> list[Match]:
        trail = live[index]
        owners = [other.track for other in live.values()]
        others = [track for track in sharing if track not in owners]
        alone = not others and (trail.is_sure or not trail.track.confirmed)
        if alone:
            _learn(trail, sighting, seconds)
        else:
            trail.track.seen_at = seconds
            trail.track.state.keep_within(sighting.box)
        for track in others:
            hold(track, sighting, seconds=seconds)
        # A box of several known things is no new one.
        inside = [*others] if others and not trail.track.confirmed else [trail.track, *others]
        return [Match(index, track, alone=alone) for track in inside]


def _heirs(
    sighting: Sighting, lost: Sequence[Track], broken: Sequence[Trail], seconds: float
) -> list[Track]:
    """Return the tracks that were expected at a box which no trail explains."""
    near = [
        track
        for track in lost
        if seconds - track.seen_at <= EXPECTED_S and place_cost(track.state, sighting.box) <= NEAR
    ]
    for trail in broken:
        if trail.expects(sighting):
            near += [track for track in (*trail.heirs, trail.track) if track in lost]
    return [track for track in near if track.confirmed]


def _learn(trail: Trail, sighting: Sighting, seconds: float) -> None:
    """Take a box that is the track's alone."""
    track = trail.track
    if track.hits:
        track.memory.add(
            sighting.looks,
            weight=sighting.weight,
            part=min(1.0, sighting.box.area / track.state.area),
            cut=sighting.cut,
            frame_s=seconds - track.seen_at,
        )
    track.state, track.cut = copy.copy(trail.state), sighting.cut
    track.seen_at, track.held_since = seconds, None
    track.hits += 1
