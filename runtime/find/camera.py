"""The finder of one source, with its zones, its masks and its limit of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.find.crops import MARGIN, crop, square
from finedge.runtime.find.finder import Finder
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.find.zones import Areas

MAX_OBJECTS = 8
PART = 0.1  # of another thing in a crop


@dataclass
class CameraFinder:
    """Finds at most `max_objects` boxes in a frame: the largest, or the surest of a detector.

    Attributes:
        finder: of this source only, as it may keep a state.
        areas: its zones and masks.
        max_objects: at least 1.
        margin: around a box, as a fraction of its longer side, on each side.
    """

    finder: Finder
    areas: Areas = field(default_factory=Areas)
    max_objects: int = MAX_OBJECTS
    margin: float = MARGIN
    _shape: tuple[int, ...] = field(default=(), init=False)

    def __call__(self, image: NDArray[np.uint8], *, seconds: float) -> tuple[Box, ...]:
        """Return the boxes in the next frame, uint8 [H, W, 3] RGB, from left to right.

        Raises:
            UsageError: a zone or a mask is not inside the frame.
        """
        height, width = image.shape[:2]
        if image.shape != self._shape:
            if not self._shape:  # pixels are those of the first frame
                self.areas = self.areas.of_frame(height, width)
            self._shape = image.shape
            if isinstance(self.finder, MotionFinder):
                self.finder.ignored = self.areas.masked(height, width)
        boxes = [_clipped(box, height, width) for box in self.finder(image, seconds=seconds)]
        kept = self.areas.kept([box for box in boxes if box], height=height, width=width)
        best = sorted(kept, key=lambda box: (box.p, box.area), reverse=True)[: self.max_objects]
        return tuple(sorted(best, key=lambda box: (box.x, box.y)))

    def shows_another(self, box: Box, boxes: Sequence[Box], *, height: int, width: int) -> bool:
        """Tell whether the crop of a box also holds a part of another box of its frame."""
        part = square(box, height=height, width=width, margin=self.margin)
        return any(other.share_in(part) > PART for other in boxes if other is not box)

    def crop(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """Return what the classifier sees for a box, uint8 [S, S, 3]."""
        return crop(image, box, margin=self.margin)


def _clipped(box: Box, height: int, width: int) -> Box | None:
    left, top = min(max(box.x, 0), width), min(max(box.y, 0), height)
    right, bottom = min(box.x + box.w, width), min(box.y + box.h, height)
    if right <= left or bottom <= top:
        return None
    return Box(left, top, right - left, bottom - top, box.p, box.kind, box.zone)
