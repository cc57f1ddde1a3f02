"""The resize `cv2-antialias`: integer arithmetic of OpenCV, the same pixels on every CPU.

For each axis, a part of the frame becomes `target` pixels:

1. It is halved while it has at least 2 * `target` pixels: means of two pixels, rounded half up.
   Two axes are halved at once, as (a + b + c + d + 2) >> 2. What remains is 1 to 2 times `target`.
2. A filter of three pixels, [q, 256 - 2q, q] / 256, removes what `target` pixels cannot show. With
   r = pixels / target, q is round(256 * (r * r - 1) / 10), at most 64, and 0 below 8 (r < 1.15).
   Both axes are summed before one rounding, half up. Beyond the edge it reads the edge pixel.
3. Linear interpolation (INTER_LINEAR_EXACT) gives `target` pixels.

Pillow's triangle filter has the variance of step 3 with q = 256 * (r * r - 1) / 12. The divisor is
10, because linear interpolation blurs less where it meets a pixel. A part that grows is only
interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

VARIANCE = 10  # divides r * r - 1; see the text above
STRONGEST = 64  # of 256: the filter [1, 2, 1] / 4
WEAKEST = 8  # a weaker filter costs as much and changes little
EDGE = cv2.BORDER_REPLICATE


@dataclass(frozen=True)
class Axis:
    """What one axis of a frame becomes.

    Attributes:
        start: the first pixel of the part of the frame.
        halvings: how often the part is halved.
        pixels: of the part after that.
        target: pixels of the result.
    """

    start: int
    halvings: int
    pixels: int
    target: int

    @property
    def stop(self) -> int:
        """One past the last pixel of the part of the frame."""
        return self.start + (self.pixels << self.halvings)

    @property
    def blur(self) -> int:
        """The weight q of both neighbours, in 1/256."""
        ratio = self.pixels / self.target
        weight = round(256 * (ratio * ratio - 1) / VARIANCE)
        return min(weight, STRONGEST) if weight >= WEAKEST else 0


def centred(source: int, target: int, *, length: float) -> Axis:
    """Return the axis that makes `target` pixels of the middle `length` of `source` pixels.

    The part has a whole number of pixels, a multiple of its halvings. So it differs from `length`
    by less than half a pixel of the result, and its centre by at most half a pixel of the frame.
    """
    halvings = 0
    while length >= target << (halvings + 1):
        halvings += 1
    pixels = min(max(round(length / (1 << halvings)), 1), source >> halvings)
    return Axis((source - (pixels << halvings)) // 2, halvings, pixels, target)


def antialias(frame: Pixels, axes: tuple[Axis, Axis], *, out: Pixels | None = None) -> Pixels:
    """Resize a part of a frame, uint8 [H, W, 3], to the targets of both axes (rows, columns).

    The result is `out` where it is given: uint8 [target, target, 3], C-contiguous.
    """
    rows, columns = axes
    part = frame[rows.start : rows.stop, columns.start : columns.stop]
    for halving in range(max(rows.halvings, columns.halvings)):
        part = _halved(part, halving < rows.halvings, halving < columns.halvings)
    part = _blurred(part, rows.blur, columns.blur)
    size = columns.target, rows.target
    result = cv2.resize(part, size, dst=out, interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(result, np.uint8)


def _halved(part: Pixels, down: bool, across: bool) -> Pixels:
    # INTER_AREA is fast, but only for two axes. Of one axis its rounding is half to even.
    height, width = part.shape[0] >> down, part.shape[1] >> across
    how = cv2.INTER_AREA if down and across else cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(part, (width, height), interpolation=how), np.uint8)


def _blurred(part: Pixels, down: int, across: int) -> Pixels:
    if not down and not across:
        return part
    kernel = 3 if across else 1, 3 if down else 1
    sigma_x, sigma_y = _sigma(across), _sigma(down)
    blurred = cv2.GaussianBlur(part, kernel, sigmaX=sigma_x, sigmaY=sigma_y, borderType=EDGE)
    return np.asarray(blurred, np.uint8)


def _sigma(blur: int) -> float:
    """Return the sigma for which OpenCV's kernel of 3, in 8 bits, is [q, 256 - 2q, q]."""
    return math.sqrt(-1 / (2 * math.log(blur / (256 - 2 * blur)))) if blur else 1.0
