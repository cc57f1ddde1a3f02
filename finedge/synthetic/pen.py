"""Anti-aliased shapes in model coordinates, put onto an image through a homography."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # [N, 2], x to the right, y down
_BITS = 4  # fractional bits of a cv2 coordinate


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas.

    Attributes:
        canvas: uint8 [H, W, 3 or 4].
        matrix: the 3x3 homography from model units to pixels.
    """

    canvas: NDArray[np.uint8]
    matrix: NDArray[np.float64]

    def moved(self, matrix: NDArray[np.float64]) -> Pen:
        """Return a pen whose model coordinates pass through `matrix` (3x3) first: a joint."""
        return Pen(self.canvas, self.matrix @ matrix)

    def fill(self, points: Points, colour: ArrayLike) -> None:
        """Fill the closed outline `points`."""
        cv2.fillPoly(self.canvas, [self._pixels(points)], self._ink(colour), cv2.LINE_AA, _BITS)

    def stroke(self, points: Points, colour: ArrayLike, *, width: float) -> None:
        """Draw the open line `points` as a band, `width` model units wide.

        A width in whole pixels would jump while the bird moves.
        """
        self.fill(band(points, width), colour)

    def disc(self, centre: tuple[float, float], radius: float, colour: ArrayLike) -> None:
        """Fill a circle."""
        self.fill(_CIRCLE * radius + centre, colour)

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        mapped = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.rint(mapped[:, :2] / mapped[:, 2:] * (1 << _BITS)).astype(np.int32)

    def _ink(self, colour: ArrayLike) -> tuple[float, ...]:
        return (*np.asarray(colour, dtype=float).tolist(), 255.0)[: self.canvas.shape[2]]


def band(points: Points, width: float) -> Points:
    """Return the outline of a line `width` wide."""
    steps = points[1:] - points[:-1]
    along = np.concatenate([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
    across = (
        along[:, ::-1]
        * (-1, 1)
        * (width / 2 / np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9))
    )
    return np.concatenate([points + across, (points - across)[::-1]])


def smooth(corners: ArrayLike, *, steps: int = 6) -> Points:
    """Return the closed Catmull-Rom curve through `corners` [N, 2] as [N * steps, 2]."""
    p1 = np.asarray(corners, dtype=float)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3, p2 - p0
    curve: Points = p1[:, None] + 0.5 * (c[:, None] * t + a[:, None] * t**2 + b[:, None] * t**3)
    return curve.reshape(-1, 2)


def bend(start: ArrayLike, middle: ArrayLike, end: ArrayLike, *, steps: int = 8) -> Points:
    """Return the quadratic curve from `start` to `end` pulled towards `middle` as [steps, 2]."""
    t = np.arange(steps)[:, None] / (steps - 1)
    curve: Points = (
        (1 - t) ** 2 * np.asarray(start)
        + 2 * t * (1 - t) * np.asarray(middle)
        + t**2 * np.asarray(end)
    )
    return curve


def turned(degrees: float, *, about: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
    """Return the 3x3 rotation (clockwise on screen) about a point."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = about
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y], [0, 0, 1]])


def arc(first: float, last: float, *, steps: int = 10) -> Points:
    """Return points of the unit circle from `first` to `last` degrees (0 right, 90 down)."""
    angles = np.radians(np.linspace(first, last, steps))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


_CIRCLE = arc(0, 345, steps=24)
