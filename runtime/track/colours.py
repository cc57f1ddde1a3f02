"""The colours of a thing as a small histogram, to know it again after a crossing or an absence."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box

SIDE = 24  # pixels of the small copy of a box
BINS = 16  # of each channel of CIELAB


def colours_of(image: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
    """Return the colours in the middle of a box, float32 [3, BINS]; each row sums to 1.

    The corners of a box are background, so an ellipse counts.
    """
    part = image[box.y : box.y + box.h, box.x : box.x + box.w]
    small = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)[_ellipse()].astype(np.int32)
    # Colours of animals are near grey: the inner half of the range of a and b, in finer bins.
    lab[:, 1:] = (lab[:, 1:] - 64) * 2
    bins = np.clip(lab * BINS // 256, 0, BINS - 1)
    counts = np.stack([np.bincount(bins[:, i], minlength=BINS) for i in range(3)])
    # A colour at the edge of a bin must not jump to the next one.
    smooth = 2.0 * counts
    smooth[:, 1:] += counts[:, :-1]
    smooth[:, :-1] += counts[:, 1:]
    return np.asarray(smooth / smooth.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=1)
def _ellipse() -> NDArray[np.bool_]:
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = (SIDE - 1) / 2
    return np.asarray(np.hypot(x - middle, y - middle) < 0.38 * SIDE).reshape(-1)
