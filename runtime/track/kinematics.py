"""Where a track is: the middle and the size of its box, and how fast the middle moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finedge.runtime.find.box import Box

SLOWING_S = 0.4  # a thing that is not seen keeps its velocity for about so long
FOLLOW_S = 0.08  # velocity and size follow a new box with this time constant
SHRINK_S = 1.5  # the size follows a smaller box with this one: a post may hide a part


@dataclass
class Kinematics:
    """The state of one track; times in seconds of the source's own clock, lengths in pixels.

    `at` is the time of the state. `own_at`, `own_x` and `own_y` are the time and the middle of the
    last box that was this track's alone.
    """

    x: float
    y: float
    w: float
    h: float
    at: float
    own_at: float
    vx: float = 0.0
    vy: float = 0.0
    own_x: float = 0.0
    own_y: float = 0.0
    updates: int = 0

    @classmethod
    def of(cls, box: Box, *, seconds: float) -> Kinematics:
        """Return the state of a thing seen for the first time."""
        x, y = _middle(box)
        return cls(x, y, box.w, box.h, seconds, seconds, own_x=x, own_y=y)

    @property
    def is_settled(self) -> bool:
        """Whether its velocity is known."""
        return self.updates >= 2

    @property
    def size(self) -> float:
        """The side of a square as large as the box, in pixels."""
        return math.sqrt(self.w * self.h)

    def predict(self, seconds: float) -> None:
        """Move on to a later time."""
        passed_s = max(0.0, seconds - self.at)
        # The way of a velocity that falls with exp(-t / SLOWING_S), but whole while it is seen.
        if self.at - self.own_at <= 0:
            self.x += self.vx * min(passed_s, SLOWING_S)
            self.y += self.vy * min(passed_s, SLOWING_S)
        else:
            rest = math.exp(-passed_s / SLOWING_S)
            self.x += self.vx * SLOWING_S * (1 - rest)
            self.y += self.vy * SLOWING_S * (1 - rest)
            self.vx, self.vy = self.vx * rest, self.vy * rest
        self.at = max(self.at, seconds)

    @property
    def area(self) -> float:
        """Its pixels."""
        return self.w * self.h

    def update(self, box: Box, *, frame_s: float, cut: bool = False) -> None:
        """Take a box that is this track's alone, `frame_s` after the last one.

        `cut`: the box before touched the edge of the frame, so that its size said little.
        """
        x, y = _middle(box)
        if frame_s > 0:
            weight = 1 - math.exp(-frame_s / FOLLOW_S)
            self.vx += ((x - self.own_x) / frame_s - self.vx) * weight
            self.vy += ((y - self.own_y) / frame_s - self.vy) * weight
            is_part = not cut and box.area < 0.7 * self.area
            if is_part:
                weight = 1 - math.exp(-frame_s / SHRINK_S)
            self.w += (box.w - self.w) * weight
            self.h += (box.h - self.h) * weight
        self.x = self.own_x = x
        self.y = self.own_y = y
        self.own_at = self.at
        self.updates += 1

    def keep_within(self, box: Box) -> None:
        """Move the middle so that the thing is inside a box that it shares."""
        spare_x, spare_y = max(0.0, box.w - self.w) / 2, max(0.0, box.h - self.h) / 2
        x, y = _middle(box)
        self.x = min(max(self.x, x - spare_x), x + spare_x)
        self.y = min(max(self.y, y - spare_y), y + spare_y)

    def covered_by(self, box: Box) -> float:
        """Return the share of this thing that is inside a box, in [0, 1]."""
        across = min(self.x + self.w / 2, box.x + box.w) - max(self.x - self.w / 2, box.x)
        down = min(self.y + self.h / 2, box.y + box.h) - max(self.y - self.h / 2, box.y)
        return max(0.0, across) * max(0.0, down) / self.area


def _middle(box: Box) -> tuple[float, float]:
    return box.x + box.w / 2, box.y + box.h / 2
