"""Whether a JPEG decoder had enough data: pixels that it invents change with the bytes after."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from finedge.image.layout import Layout, Scans, Unreadable

GREY = 128
# Begins with ones: decoders put zeros for what is missing. No FF, and no code repeats for long.
STUFFING = b"\xfe" + bytes((73 * i + 29) % 251 for i in range(95))


def made_up(layout: Layout, image: NDArray[np.uint8]) -> bool:
    """Tell whether the decoder had to complete `image`, uint8 [H, W, 3] before its turn.

    Decoders fill what is missing, and report success. Behind the data of each interval other bytes
    are put: one who had enough of its own never reads them. Pillow decodes these, because its
    libjpeg does not write to stderr.
    """
    scans = layout.scans
    if scans is None or not (scans.doubtful or _has_grey(image, scans)):
        return False
    stuffed = _pillow(_stuffed(layout.data, scans))
    # The second look is for a Pillow whose libjpeg rounds otherwise than OpenCV's, and for CMYK.
    return not (np.array_equal(image, stuffed) or np.array_equal(_pillow(layout.data), stuffed))


def _has_grey(image: NDArray[np.uint8], scans: Scans) -> bool:
    x, y = np.array(scans.grey, dtype=np.intp).reshape(-1, 2).T
    return bool((image[y, x] == GREY).all(axis=1).any())


def _stuffed(data: bytes, scans: Scans) -> bytes:
    pieces, last = list[bytes](), 0
    for end in scans.ends:
        pieces += [data[last:end], STUFFING]
        last = end
    return b"".join([*pieces, data[last:]])


def _pillow(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image  # seldom needed

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image if image.mode != "L" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(f"is damaged: {error}") from None
