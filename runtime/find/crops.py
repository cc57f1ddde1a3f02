"""The part of a frame that the classifier sees for a box: a square with a margin."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box

MARGIN = 0.15  # of the longer side, on each side of the box


def square(box: Box, *, height: int, width: int, margin: float = MARGIN) -> Box:
    """Return the square around a box that is inside a frame, shifted where the frame ends.

    It is no larger than the frame's shorter side, unless the box is: then it holds the whole box,
    and a part of it is outside the frame.
    """
    longer = max(box.w, box.h)
    side = max(longer, min(round(longer * (1 + 2 * margin)), height, width))
    x = round(box.x + (box.w - side) / 2)
    y = round(box.y + (box.h - side) / 2)
    return Box(_inside(x, side, width), _inside(y, side, height), side, side)


def crop(image: NDArray[np.uint8], box: Box, *, margin: float = MARGIN) -> NDArray[np.uint8]:
    """Return the square around a box at the frame's own resolution, uint8 [S, S, 3].

    It is a view of the frame, or a copy where the square is larger than the frame: what is missing
    is then filled with the edge's pixels.
    """
    height, width = image.shape[:2]
    part = square(box, height=height, width=width, margin=margin)
    top, left = max(part.y, 0), max(part.x, 0)
    pixels = image[top : part.y + part.h, left : part.x + part.w]
    if pixels.shape[0] == part.h and pixels.shape[1] == part.w:
        return pixels
    above, before = top - part.y, left - part.x
    below, after = part.h - above - pixels.shape[0], part.w - before - pixels.shape[1]
    edges = (above, below, before, after)
    return cv2.copyMakeBorder(pixels, *edges, cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _inside(start: int, side: int, length: int) -> int:
    """Shift a range into [0, length); where it is longer, centre it."""
    if side > length:
        return (length - side) // 2
    return min(max(start, 0), length - side)
