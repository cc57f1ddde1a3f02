"""Reads image files: one decoder for training and device, so that both see the same pixels.

It may import `finedge/*.py`, numpy, cv2 and Pillow. Training, calibration, evaluation, the data
layouts and the frame sources call it. `read_image` reads a file, `decode` reads bytes.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError
from finedge.image.decode import MAX_PIXELS, decode
from finedge.image.formats import SUFFIXES
from finedge.image.header import CutShort, Unreadable
from finedge.regular_files import read_regular

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "CutShort",
    "Unreadable",
    "decode",
    "decode_image",
    "is_image",
    "read_image",
]

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30  # of a file; a picture of MAX_PIXELS is smaller
_logged: set[tuple[Path, str]] = set()  # (folder, start of the remark) already logged


def is_image(path: Path) -> bool:
    """Tell by its suffix whether `path` names an image file."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Decode a file to uint8 [H, W, 3] RGB, as `decode` does.

    A remark on a picture is logged once a folder.

    Examples:
        >>> from finedge import read_image
        >>> image = read_image(Path("photo.jpg"))
        >>> image.shape, image.dtype.name
        ((224, 224, 3), 'uint8')

    Raises:
        DataError: the file is missing, incomplete, or not in a supported format. The text has
            the reason.
    """
    path = Path(path)
    try:
        decoded = decode(read_regular(path, limit=MAX_BYTES))
    except OSError as error:
        why = f"cannot read {path}: {error.strerror or error}"
        raise DataError(why, expected="a readable image file") from error
    except Unreadable as error:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{path} {error}", expected=f"a complete picture: {kinds}") from error
    if decoded.remark and (path.parent, decoded.remark[:20]) not in _logged:
        _logged.add((path.parent, decoded.remark[:20]))
        log.warning("%s: %s (logged once a folder)", path, decoded.remark)
    return decoded.image


def decode_image(data: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Decode the bytes of an image file to uint8 [H, W, 3] RGB, or return None."""
    try:
        return decode(data.tobytes()).image
    except Unreadable:
        return None
