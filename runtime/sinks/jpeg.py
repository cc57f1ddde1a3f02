"""A picture as a JPEG that a page, a queue or a message can hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SIDE, QUALITY = 960, 80


def to_jpeg(image: NDArray[np.uint8], *, side: int = MAX_SIDE) -> bytes:
    """Encode uint8 [H, W, 3] RGB as a JPEG of at most `side` pixels a side."""
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
