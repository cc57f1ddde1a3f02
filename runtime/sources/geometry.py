"""The size and flip of `CaptureOptions`, on images in memory."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.image.moves import Moves, moved
from finedge.runtime.sources.base import CaptureOptions

# The flips of `CaptureOptions`.
FLIP_MOVES: dict[int, Moves] = {
    1: (1, 1, 0),
    2: (0, 1, 1),
    3: (1, 0, 1),
    4: (0, 0, 1),
    5: (1, 1, 1),
    6: (0, 1, 0),
    7: (1, 0, 0),
}


def scale_and_flip(image: NDArray[np.uint8], options: CaptureOptions) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3], scaled to the size of `options` (by area), then flipped."""
    if options.width and options.height:
        size = (options.width, options.height)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return flip_image(image, options.flip)


def flip_image(image: NDArray[np.uint8], flip: int) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3], turned or mirrored as `CaptureOptions.flip` says; contiguous."""
    if flip == 0:
        return image
    return moved(image, FLIP_MOVES[flip])
