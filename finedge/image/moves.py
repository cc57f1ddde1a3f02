"""Right-angle moves of an image: rotations and reflections, as EXIF and cameras number them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Moves = tuple[int, int, int]  # each 0 or 1: transpose first, then upside down, then left-right


def moved(image: NDArray[np.uint8], moves: Moves) -> NDArray[np.uint8]:
    """Return uint8 [H, W, C] after the moves; contiguous."""
    transpose, down, right = moves
    turned = image.transpose(1, 0, 2) if transpose else image
    return np.ascontiguousarray(turned[:: -1 if down else 1, :: -1 if right else 1])
