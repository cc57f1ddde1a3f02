"""Where the labels of a plot go: near their points, on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FONT = 13
CHARACTER = 0.58 * FONT  # a little more than the mean width of a letter of system fonts
MARK = 9  # half the side of the square around a point that labels leave free


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    @classmethod
    def around(cls, x: float, y: float, *, width: float, height: float) -> Box:
        """Return the box of a size around a point."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def mark_boxes(x: float, y: float, *, top: float, bottom: float) -> tuple[Box, Box]:
    """Return what a point and its interval bar cover."""
    return Box.around(x, y, width=2 * MARK, height=2 * MARK), Box(x - 4, top, x + 4, bottom)


def line_boxes(first: tuple[float, float], second: tuple[float, float]) -> list[Box]:
    """Return small boxes along the line between two points."""
    steps = max(1, int(math.dist(first, second) / 8))
    dx, dy = ((b - a) / steps for a, b in zip(first, second, strict=True))
    points = [(first[0] + i * dx, first[1] + i * dy) for i in range(steps + 1)]
    return [Box.around(x, y, width=4, height=4) for x, y in points]


def free_place(x: float, y: float, *, text: str, plot: Box, taken: Sequence[Box]) -> Box:
    """Return the nearest place for a label at a point that covers nothing of `taken`.

    If there is none, it is the place that covers least.
    """
    width, height = CHARACTER * len(text), FONT * 1.25
    places = [Box.around(x + dx, y + dy, width=width, height=height) for dx, dy in _offsets(width)]
    inside = [place for place in places if _fits(place, plot)]
    return min(inside or places, key=lambda place: sum(place.overlap(box) for box in taken))


def _fits(place: Box, plot: Box) -> bool:
    """Tell whether a label stays in the plot; it may pass the top and the right a little."""
    across = place.left >= plot.left + 2 and place.right <= plot.right + 14
    return across and place.top >= plot.top - 14 and place.bottom <= plot.bottom - 2


def _offsets(width: float) -> list[tuple[float, float]]:
    """Return where the middle of a label may lie relative to its point, the nearest first.

    Beside the point, diagonal, further up and down; then above and below it.
    """
    side = width / 2 + 13
    rows = sorted((16.0 * i for i in range(-10, 11)), key=abs)
    beside = [(sign * side, dy) for dy in rows for sign in (1, -1)]
    return beside + [(0.0, dy) for dy in rows if abs(dy) > 16]
