"""Trails: boxes that follow one another without a doubt.

A trail breaks where the next box may be another thing: it is much larger or smaller, or it looks
different. Which track a trail is, is a question for `identify.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finedge.runtime.track.assign import assign
from finedge.runtime.track.cost import LIMIT, cost, place_cost
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.looks import Memory, looks_cost
from finedge.runtime.track.track import Sighting, Track

GROWN, SHRUNK = 1.4, 0.7  # ratios of areas from which on a box may hold something else
JUMP = 3.5  # looks of the next box that break a trail: more than 99 % of the boxes of one bird
JUMP_NEAR = 5.0  # the same where the box is where the thing was expected
NEAR = 2.0  # a place that costs no more is where the thing was expected
MISSED = 1  # frames in which the finder may miss a thing without breaking its trail


@dataclass(eq=False)
class Trail:
    """Boxes that follow one another.

    Attributes:
        track: the one that it is, or may be; its own one while it is not known.
        opened: when it began, in s.
        unsure_since: since when it is not sure that it is `track`, in s; None where it is.
        heirs: tracks that were expected where it began.
        holds: tracks that share its boxes, for as long as it is unsure.
    """

    state: Kinematics
    memory: Memory
    track: Track
    opened: float
    cut: bool
    unsure_since: float | None
    missed: int = 0
    heirs: list[Track] = field(default_factory=list)
    holds: set[Track] = field(default_factory=set)

    @property
    def is_sure(self) -> bool:
        """Whether it is known to be its track."""
        return self.unsure_since is None

    def follow(self, sighting: Sighting, *, seconds: float) -> None:
        """Take the next box."""
        frame_s = seconds - self.state.own_at
        part = min(1.0, sighting.box.area / self.state.area)
        self.state.update(sighting.box, frame_s=frame_s, cut=self.cut)
        if self.cut and not sighting.cut:
            self.memory = Memory.of(sighting.looks, weight=sighting.weight)  # whole at last
        else:
            self.memory.add(
                sighting.looks,
                weight=sighting.weight,
                part=part,
                cut=sighting.cut,
                frame_s=frame_s,
            )
        if sighting.cut and not self.cut and self.is_sure:
            # It may leave now, and another one may come there: the edge hides which one it is.
            self.unsure_since = seconds
        self.cut, self.missed = sighting.cut, 0

    def expects(self, sighting: Sighting) -> bool:
        """Whether a box is where the thing was expected."""
        return place_cost(self.state, sighting.box) <= NEAR

    def breaks_at(self, sighting: Sighting) -> bool:
        """Whether a box may be, or hold, another thing."""
        if self.cut or sighting.cut:
            return False
        if not SHRUNK <= sighting.box.area / self.state.area <= GROWN:
            return True
        jump = JUMP_NEAR if self.expects(sighting) else JUMP
        return looks_cost(self.memory.recent, sighting.looks) > jump


def link(
    trails: Sequence[Trail], sightings: Sequence[Sighting], *, seconds: float
) -> dict[int, Trail]:
    """Return the trail of each box that goes on with one; these trails have taken their boxes."""
    costs = np.full((len(trails), len(sightings)), np.inf)
    for row, trail in enumerate(trails):
        for column, sighting in enumerate(sightings):
            costs[row, column] = cost(
                trail.state, trail.memory.recent, box=sighting.box, box_looks=sighting.looks
            )
    live = {}
    for row, column in assign(costs, limit=LIMIT):
        trail, sighting = trails[row], sightings[column]
        if not trail.breaks_at(sighting):
            trail.follow(sighting, seconds=seconds)
            live[column] = trail
    return live
