"""Which track an unsure trail is: at once where its looks are clear, else after a while.

Trails and tracks are paired all together. So one that two trails look like goes to the better one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.track.assign import assign
from finedge.runtime.track.track import Sighting, Track, TrackRule
from finedge.runtime.track.trails import Trail

SURE = 2.2  # looks that are clear: 95 % of the boxes of one bird, under 0.1 % of another's
SURE_HEIR = 3.2  # the same for a track that was expected there
MARGIN = 1.5  # by so much the second track must look less alike
WHOLE = (0.7, 1.4)  # ratios of areas between which a box is the whole thing, and nothing else
WITHIN = 1.2  # so much more may the looks differ of a thing that did not leave the frame,
HEIR = 1.5  # and of one that was expected there


@dataclass(frozen=True)
class Candidate:
    """A trail with its box of this frame; `is_due` where it must be decided now."""

    trail: Trail
    sighting: Sighting
    is_due: bool


def clear_pairs(
    candidates: Sequence[Candidate], tracks: Sequence[Track]
) -> Iterator[tuple[Candidate, Track]]:
    """Yield whom a box shows beyond doubt, the most alike first."""
    unlike = np.array([[_unlike(one, track) for track in tracks] for one in candidates])
    while unlike.size and unlike.min() <= SURE:
        row, column = divmod(int(unlike.argmin()), len(tracks))
        second = np.delete(unlike[row], column).min(initial=np.inf)
        is_clear = second - unlike[row, column] >= MARGIN
        unlike[row] = np.inf
        if is_clear:
            unlike[:, column] = np.inf
            yield candidates[row], tracks[column]


def likely_pairs(
    candidates: Sequence[Candidate], tracks: Sequence[Track], *, rule: TrackRule
) -> list[tuple[Candidate, Track]]:
    """Return whom the trails that are due look like, in all their boxes."""
    costs: NDArray[np.float64] = np.array(
        [[_apart(one.trail, track, rule) for track in tracks] for one in candidates]
    ).reshape(len(candidates), len(tracks))
    return [(candidates[row], tracks[column]) for row, column in assign(costs, limit=1.0)]


def _unlike(candidate: Candidate, track: Track) -> float:
    """Return how little a whole box looks like a track; infinite where it is not whole."""
    sighting = candidate.sighting
    if sighting.cut or not WHOLE[0] <= sighting.box.area / track.state.area <= WHOLE[1]:
        return np.inf
    unlike = track.memory.unlike(sighting.looks)
    return unlike * SURE / SURE_HEIR if track in candidate.trail.heirs else unlike


def _apart(trail: Trail, track: Track, rule: TrackRule) -> float:
    """Return how little a trail looks like a track; above 1: too little."""
    limit = rule.alike * (1.0 if track.cut else WITHIN)
    if track in trail.heirs or track is trail.track:
        limit = rule.alike * HEIR
    return track.memory.apart(trail.memory) / limit
