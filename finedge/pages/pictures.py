"""Pictures inside of a page, as data: addresses."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError
from finedge.image import read_image

QUALITY = 88  # JPEG
SMALL_QUALITY = 80  # JPEG, of a small picture


def data_address(picture: NDArray[np.uint8], suffix: str, *, quality: int = QUALITY) -> str:
    """Return a picture (uint8 [H, W, 3] RGB) as a data: address; suffix is .jpg or .png."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, picture[..., ::-1], options)
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def small_picture(path: Path, *, side: int) -> str:
    """Return the middle square of an image file as a data: address; empty if it is unreadable.

    Args:
        path: the image.
        side: pixels of a side.
    """
    try:
        image = read_image(path)
    except (DataError, OSError):
        return ""
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = np.ascontiguousarray(image[top : top + short, left : left + short])
    method = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    small = cv2.resize(square, (side, side), interpolation=method)
    return data_address(np.asarray(small, np.uint8), ".jpg", quality=SMALL_QUALITY)
