"""Detects pixels that a JPEG decoder invented because data was missing.

Such pixels change with the bytes that follow the data; true pixels do not.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from finedge.image.header import ImageHeader, Scans, Unreadable

GREY = 128
# It begins with ones, because decoders put zeros for missing bits. It holds no FF, and no code
# repeats for long.
PADDING = b"\xfe" + bytes((73 * i + 29) % 251 for i in range(95))


def has_invented_pixels(header: ImageHeader, image: NDArray[np.uint8]) -> bool:
    """Tell whether the decoder invented pixels of `image`, uint8 [H, W, 3] before its turn.

    Decoders fill gaps and report success. So other bytes are put after the data of each restart
    interval. A decoder that had enough data never reads them. Pillow decodes this copy, because
    its libjpeg does not write to stderr.
    """
    scans = header.scans
    if scans is None or not (scans.doubtful or _has_grey(image, scans)):
        return False
    padded = _decode_with_pillow(_padded(header.data, scans))
    if np.array_equal(image, padded):
        return False
    # Pillow's libjpeg may round differently from OpenCV's, and CMYK differs: compare with itself.
    return not np.array_equal(_decode_with_pillow(header.data), padded)


def _has_grey(image: NDArray[np.uint8], scans: Scans) -> bool:
    x, y = np.array(scans.grey, dtype=np.intp).reshape(-1, 2).T
    return bool((image[y, x] == GREY).all(axis=1).any())


def _padded(data: bytes, scans: Scans) -> bytes:
    pieces, last = list[bytes](), 0
    for end in scans.ends:
        pieces += [data[last:end], PADDING]
        last = end
    return b"".join([*pieces, data[last:]])


def _decode_with_pillow(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image  # imported here: it is rarely needed

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image if image.mode != "L" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(f"is damaged: {error}") from None
