"""A rectangle of a frame in which there is something to classify."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in whole pixels of the frame, from its left and top.

    Attributes:
        x: of the left edge.
        y: of the top edge.
        w: at least 1.
        h: at least 1.
        p: the finder's own confidence, in [0, 1]; motion has 1.
        kind: the detector's class, e.g. "bird"; "" for motion.
        zone: the zone that the box is in; "" without zones.
    """

    x: int
    y: int
    w: int
    h: int
    p: float = 1.0
    kind: str = ""
    zone: str = ""

    @property
    def area(self) -> int:
        """Its pixels."""
        return self.w * self.h

    def overlap(self, other: Box) -> float:
        """Return intersection over union with another box, in [0, 1]."""
        common = self._common(other)
        return common / (self.area + other.area - common)

    def share_in(self, other: Box) -> float:
        """Return the share of this box that is inside another one, in [0, 1]."""
        return self._common(other) / self.area

    def _common(self, other: Box) -> int:
        width = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        height = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        return max(0, width) * max(0, height)
