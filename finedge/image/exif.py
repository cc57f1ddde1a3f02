"""Reads the orientation that a camera stores in EXIF data, and turns pictures upright."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from finedge.image.moves import Moves, moved

ORIENTATION = 0x0112
SHORT = 3
# of EXIF orientations 2 to 8
MOVES: dict[int, Moves] = {
    2: (0, 0, 1),
    3: (0, 1, 1),
    4: (0, 1, 0),
    5: (1, 0, 0),
    6: (1, 0, 1),
    7: (1, 1, 1),
    8: (1, 1, 0),
}


def orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of EXIF data that begins at its TIFF header; 1 for none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if tag == ORIENTATION:
            return value if kind == SHORT and value in MOVES else 1
    return 1


def upright(image: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Return uint8 [H, W, C] turned by orientation `turn`; contiguous."""
    if turn not in MOVES:
        return image
    return moved(image, MOVES[turn])
