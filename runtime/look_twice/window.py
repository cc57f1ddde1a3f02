"""Where the second look lies on a frame, and how it becomes the network's input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finedge.preprocess import resized_shape
from finedge.spec import Preprocess

Slices = tuple[slice, slice]


def window(
    shape: tuple[int, int], config: Preprocess, *, peak: tuple[float, float], share: float
) -> Slices:
    """Return the rows and columns of a frame that the second look sees.

    The window has `share` of the first crop's sides. It is centred at the peak, and moved inside
    of the frame. It can leave the first crop: the frame may go on there.

    Args:
        shape: height and width of the frame.
        config: of the first look.
        peak: (x, y) in pixels of the first crop, whose first pixel is centred at 0.5.
        share: in (0, 1].
    """
    sizes = resized_shape(shape[0], shape[1], config)
    rows, columns = (
        _span(side, side / size, crop=config.crop, centre=at, share=share)
        for side, size, at in zip(shape, sizes, peak[::-1], strict=True)
    )
    return rows, columns


def _span(side: int, scale: float, *, crop: int, centre: float, share: float) -> slice:
    """Return one axis; `scale` is pixels of the frame for one of the resized frame."""
    first = (side - crop * scale) / 2
    length = min(side, max(1, round(share * crop * scale)))
    start = round(first + centre * scale - length / 2)
    start = min(max(start, 0), side - length)
    return slice(start, start + length)


def whole(config: Preprocess) -> Preprocess:
    """Return the preprocessing that makes the input of all of a window, by the same method."""
    return replace(config, resize=config.crop, rule="squash")


def cut(frame: NDArray[np.uint8], slices: Slices) -> NDArray[np.uint8]:
    """Return a part of a frame, uint8 [h, w, 3], without a copy."""
    return frame[slices]
