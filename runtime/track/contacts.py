"""Things that touch: several of them are in one box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finedge.runtime.track.track import Sighting, Track, TrackRule
from finedge.runtime.track.trails import Trail

SHARED = 0.25  # a track is in a box that covers so much of it
LARGER = 1.3  # a box so much larger than a track holds something else too


def find_contacts(
    tracks: Sequence[Track],
    sightings: Sequence[Sighting],
    live: Mapping[int, Trail],
    *,
    rule: TrackRule,
    seconds: float,
) -> dict[int, list[Track]]:
    """Return the tracks that share each box.

    A trail whose box covers the place of a track that is not seen itself may be that one: from now
    on it is not sure any more.
    """
    seen = {trail.track.number for trail in live.values()}
    sharing: dict[int, list[Track]] = {}
    for track in tracks:
        if track.number in seen or not _may_be_in_a_box(track, rule, seconds):
            continue
        covers = [track.state.covered_by(sighting.box) for sighting in sightings]
        if not covers or max(covers) < SHARED:
            continue
        index = int(np.argmax(covers))
        trail = live[index]
        if trail.unsure_since is None:
            trail.unsure_since = seconds
        # Where one passes behind another, the box of both is no larger than that of one.
        if sightings[index].box.area > LARGER * track.state.area or track in trail.holds:
            sharing.setdefault(index, []).append(track)
            trail.holds.add(track)
    return sharing


def hold(track: Track, sighting: Sighting, *, seconds: float) -> None:
    """Keep a track in a box that it shares."""
    track.held_since = seconds if track.held_since is None else track.held_since
    track.seen_at = seconds
    track.state.keep_within(sighting.box)


def _may_be_in_a_box(track: Track, rule: TrackRule, seconds: float) -> bool:
    if not rule.is_firm(track) or seconds - track.seen_at > rule.coast_s:
        return False
    return track.held_since is None or seconds - track.held_since <= rule.share_s
