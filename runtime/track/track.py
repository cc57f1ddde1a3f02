"""A track, what it is made of, and its times."""

from __future__ import annotations

from dataclasses import dataclass, field

from finedge.runtime.find.box import Box
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.looks import Looks, Memory
from finedge.runtime.track.pool import Pool


@dataclass(frozen=True)
class TrackRule:
    """Times of a track, in seconds.

    Attributes:
        firm_s: a track may be in the box of another after so long,
        hits: and after so many boxes.
        confirm_s: it counts after so long; until then it may turn out to be one that was lost.
        decide_s: after a contact, what is not clear from the looks is decided after so long.
        coast_s: a track that is not seen may be in the box of another for so long.
        share_s: tracks share one box for at most so long.
        gap_s: a track that is not seen for so long has ended.
        alike: how little looks may differ (`looks_cost`) for a thing that comes back.
    """

    firm_s: float = 0.25
    hits: int = 3
    confirm_s: float = 0.6
    decide_s: float = 0.4
    coast_s: float = 1.1
    share_s: float = 5.0
    gap_s: float = 3.0
    alike: float = 3.2

    def is_firm(self, track: Track) -> bool:
        """Whether a track is hardly noise."""
        enough_s = track.seen_at - track.began >= self.firm_s - 1e-6
        return track.confirmed or (enough_s and track.hits >= self.hits)


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

    `state` and `memory` are of the last frame in which it was sure. `began` and `seen_at` are of
    its first and last frame, `held_since` is when it began to share a box, in s.
    """

    number: int
    state: Kinematics
    memory: Memory
    began: float
    seen_at: float
    cut: bool
    hits: int = 0
    confirmed: bool = False
    held_since: float | None = None
    pool: Pool = field(default_factory=Pool)


@dataclass(frozen=True)
class Match:
    """A box of the frame, by its place in the frame's list, and a track that is there.

    `alone` is False where several tracks share the box, and while it is not sure which one it is.
    """

    box: int
    track: Track
    alone: bool = True
