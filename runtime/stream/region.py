"""The region of interest: the part of the frame that the model sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError

FORM = "x,y,w,h: pixels, or fractions of the frame (all at most 1), e.g. 0.25,0,0.5,1"


@dataclass(frozen=True)
class Region:
    """A rectangle of the frame, from its left and top.

    It is in pixels, or in fractions of the frame where all four numbers are at most 1.
    """

    x: float
    y: float
    w: float
    h: float

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read `x,y,w,h`.

        Raises:
            UsageError: not four numbers, no area, or outside any frame.
        """
        try:
            region = cls(*(float(part) for part in text.split(",")))
        except (ValueError, TypeError):
            raise UsageError(f"--roi {text}", expected=FORM) from None
        finite = all(map(math.isfinite, (region.x, region.y, region.w, region.h)))
        if not finite or min(region.x, region.y) < 0 or min(region.w, region.h) <= 0:
            raise UsageError(f"--roi {text}", expected=f"x, y >= 0 and w, h > 0. {FORM}")
        return region

    def pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return x, y, w, h in pixels of a frame.

        Raises:
            UsageError: it is not inside the frame, or smaller than a pixel.
        """
        fractions = max(self.x, self.y, self.w, self.h) <= 1
        unit_x, unit_y = (width, height) if fractions else (1, 1)
        left, top = round(self.x * unit_x), round(self.y * unit_y)
        right, bottom = round((self.x + self.w) * unit_x), round((self.y + self.h) * unit_y)
        if right > width or bottom > height or right <= left or bottom <= top:
            raise UsageError(
                f"--roi {self.x:g},{self.y:g},{self.w:g},{self.h:g} of a frame of {width}x{height}",
                expected=f"a part of it. {FORM}",
            )
        return left, top, right - left, bottom - top

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the region of uint8 [H, W, 3] as a view."""
        x, y, w, h = self.pixels(*image.shape[:2])
        return image[y : y + h, x : x + w]
