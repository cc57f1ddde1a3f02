"""From the bytes of an image file to its pixels, as a viewer shows them."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.image.exif import upright
from finedge.image.formats import Format, layout_of, why_not
from finedge.image.layout import CutShort, Layout, Unreadable
from finedge.image.stuffed import made_up

MAX_PIXELS = 89_000_000  # as Pillow: 267 MB of RGB
LARGE_PIXELS = 20_000_000  # more than this: one at a time
DEPTHS = (1, 2, 4, 8, 16)
TWELVE_BITS = 4095
# OpenCV before 4.10 knows BGR only.
COLOUR = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
IS_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_one_large = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """Pixels, uint8 [H, W, 3] RGB, and a remark on them, or ""."""

    image: NDArray[np.uint8]
    remark: str = ""


def decode(raw: bytes) -> Decoded:
    """Decode the bytes of an image file; of several pictures in it the first.

    EXIF orientation is applied. What is transparent shows white. Grey is repeated.
    16 bits are shortened to 8.

    Raises:
        Unreadable: it is not whole, too large, or of no kind that is read.
    """
    format, layout = layout_of(raw)
    _check_size(layout)
    try:
        with _room(layout):
            if format.check is not None:
                format.check(layout)
            decoded = _pixels(format, layout)
    except MemoryError:
        size = f"{layout.width}x{layout.height} pixels"
        raise Unreadable(f"has {size}, for which this machine lacks the memory") from None
    return Decoded(upright(decoded.image, layout.turn), decoded.remark)


def _check_size(layout: Layout) -> None:
    pixels = layout.width * layout.height
    if layout.bits not in DEPTHS:
        known = ", ".join(map(str, DEPTHS))
        raise Unreadable(f"has the unknown bit depth {layout.bits} (known: {known})")
    if pixels < 1:
        raise Unreadable(f"has {layout.width}x{layout.height} pixels")
    most = MAX_PIXELS // (2 if layout.bits > 8 else 1)
    if pixels > most:
        size = f"{layout.width}x{layout.height} pixels of {layout.bits} bits"
        read = f"at most {most / 1e6:g} million are read"
        raise Unreadable(f"is too large: {size}, {read}: scale it down")


def _room(layout: Layout) -> AbstractContextManager[Any]:
    return _one_large if layout.width * layout.height > LARGE_PIXELS else nullcontext()


def _pixels(format: Format, layout: Layout) -> Decoded:
    if layout.alpha or layout.bits > 8 or layout.peak:
        return _as_shown(_opencv(format, layout, cv2.IMREAD_UNCHANGED), layout)

    image = _opencv(format, layout, COLOUR)
    if not IS_RGB:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if made_up(layout, image):
        raise CutShort("a part of its picture data is missing")
    return Decoded(image)


def _opencv(format: Format, layout: Layout, flags: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(layout.data, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable(why_not(format, layout))
    return image


def _as_shown(samples: NDArray[Any], layout: Layout) -> Decoded:
    """Return what a viewer shows of uint8 or uint16 [H, W] or [H, W, 1, 3 or 4] (BGR, alpha)."""
    if samples.dtype not in (np.uint8, np.uint16):
        what = f"has samples of type {samples.dtype}, which name no white"
        raise Unreadable(f"{what}: convert it to 8 bits")
    remark = _remark(samples) if layout.bits > 8 and not layout.peak else ""
    if layout.peak:
        samples = (samples.astype(np.uint32) * 255 // layout.peak).clip(0, 255).astype(np.uint8)
    elif samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 3 and samples.shape[2] == 4:
        return Decoded(_on_white(samples, premultiplied=layout.premultiplied), remark)
    grey = samples.ndim == 2 or samples.shape[2] == 1
    code = cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB
    return Decoded(np.asarray(cv2.cvtColor(samples, code), dtype=np.uint8), remark)


def _on_white(samples: NDArray[np.uint8], *, premultiplied: bool) -> NDArray[np.uint8]:
    """Lay uint8 [H, W, 4] BGRA on white; colours that nobody sees are none."""
    rgb = np.asarray(cv2.cvtColor(samples, cv2.COLOR_BGRA2RGB), dtype=np.uint8)
    alpha = samples[..., 3]
    if alpha.min() == 255:
        return rgb
    opaque = alpha[..., None].astype(np.uint16)
    for row, shown, white in zip(rgb, opaque, 255 - opaque, strict=True):
        seen = row if premultiplied else (row * shown + 127) // 255
        row[:] = np.minimum(seen + white, 255)
    return rgb


def _remark(samples: NDArray[Any]) -> str:
    most = int(samples.max(initial=0))
    if not 0 < most <= TWELVE_BITS:
        return ""
    reach = f"its 16 bits reach {most} of 65535, as 12 bits in 16 do"
    return f"{reach}: it is read as dark as a viewer shows it"
