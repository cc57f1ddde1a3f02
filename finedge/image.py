"""Reading image files: one decoder for training and device, so that both see the same pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def is_image(path: Path) -> bool:
    """Tell by its suffix whether `path` names an image file."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a file to uint8 [H, W, 3] RGB; EXIF orientation is applied, alpha is dropped, grey is repeated.

    Raises:
        DataError: the file is missing, empty, or not a complete image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", expected="a readable image file") from error
    image = decode_image(data)
    if image is None:
        raise DataError(f"{path} is not a complete image ({data.size} bytes)", expected=f"one of {', '.join(sorted(SUFFIXES))}")
    return image


def decode_image(data: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Decode the bytes of an image file to uint8 [H, W, 3] RGB, or return None."""
    if data.size == 0 or _cut_short(data):
        return None
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    except cv2.error:
        return None


def _cut_short(data: NDArray[np.uint8]) -> bool:
    # libjpeg fills what is missing of a truncated JPEG with grey and reports success: look for the end marker ourselves,
    # behind the last start-of-scan (an embedded thumbnail has an end marker of its own).
    raw = data.tobytes()
    return raw.startswith(b"\xff\xd8") and b"\xff\xd9" not in raw[raw.rfind(b"\xff\xda") :]
