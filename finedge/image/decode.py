"""Decodes the bytes of an image file to pixels, as a viewer shows them."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.image.exif import upright
from finedge.image.formats import Format, read_header, reason_not_decoded
from finedge.image.header import CutShort, ImageHeader, Unreadable
from finedge.image.jpeg_gaps import has_invented_pixels

MAX_PIXELS = 89_000_000  # as Pillow: 267 MB of RGB
LARGE_PIXELS = 20_000_000  # larger pictures are decoded one at a time
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
    """Decode the bytes of an image file; of several pictures in it, the first.

    EXIF orientation is applied. Transparent pixels become white. A grey channel is repeated.
    16 bits are shortened to 8.

    Examples:
        >>> decode(b"P2 2 1 255 0 255 ").image.tolist()
        [[[0, 0, 0], [255, 255, 255]]]

    Raises:
        Unreadable: it is incomplete, too large, or not in a supported format.
    """
    format, header = read_header(raw)
    _check_size(header)
    try:
        with _memory_guard(header):
            if format.check is not None:
                format.check(header)
            decoded = _pixels(format, header)
    except MemoryError:
        size = f"{header.width}x{header.height} pixels"
        raise Unreadable(f"has {size}, too many for the memory of this machine") from None
    return Decoded(upright(decoded.image, header.turn), decoded.remark)


def _check_size(header: ImageHeader) -> None:
    pixels = header.width * header.height
    if header.bits not in DEPTHS:
        known = ", ".join(map(str, DEPTHS))
        raise Unreadable(f"has the unknown bit depth {header.bits} (known: {known})")
    if pixels < 1:
        raise Unreadable(f"has {header.width}x{header.height} pixels")
    max_pixels = MAX_PIXELS // (2 if header.bits > 8 else 1)
    if pixels > max_pixels:
        size = f"{header.width}x{header.height} pixels of {header.bits} bits"
        read = f"at most {max_pixels / 1e6:g} million are read"
        raise Unreadable(f"is too large: {size}, {read}: scale it down")


def _memory_guard(header: ImageHeader) -> AbstractContextManager[Any]:
    return _one_large if header.width * header.height > LARGE_PIXELS else nullcontext()


def _pixels(format: Format, header: ImageHeader) -> Decoded:
    if header.alpha or header.bits > 8 or header.peak:
        return _as_shown(_opencv(format, header, cv2.IMREAD_UNCHANGED), header)

    image = _opencv(format, header, COLOUR)
    if not IS_RGB:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if has_invented_pixels(header, image):
        raise CutShort("a part of its picture data is missing")
    return Decoded(image)


def _opencv(format: Format, header: ImageHeader, flags: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(header.data, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable(reason_not_decoded(format, header))
    return image


def _as_shown(samples: NDArray[Any], header: ImageHeader) -> Decoded:
    """Return what a viewer shows of uint8 or uint16 [H, W] or [H, W, 1, 3 or 4] (BGR, alpha)."""
    if samples.dtype not in (np.uint8, np.uint16):
        what = f"has samples of type {samples.dtype}, which define no value for white"
        raise Unreadable(f"{what}: convert it to 8 bits")
    remark = _remark(samples) if header.bits > 8 and not header.peak else ""
    if header.peak:
        samples = (samples.astype(np.uint32) * 255 // header.peak).clip(0, 255).astype(np.uint8)
    elif samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 3 and samples.shape[2] == 4:
        return Decoded(_on_white(samples, premultiplied=header.premultiplied), remark)
    grey = samples.ndim == 2 or samples.shape[2] == 1
    code = cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB
    return Decoded(np.asarray(cv2.cvtColor(samples, code), dtype=np.uint8), remark)


def _on_white(samples: NDArray[np.uint8], *, premultiplied: bool) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 4] BGRA on white, as uint8 [H, W, 3] RGB."""
    rgb = np.asarray(cv2.cvtColor(samples, cv2.COLOR_BGRA2RGB), dtype=np.uint8)
    alpha = samples[..., 3]
    if alpha.min() == 255:
        return rgb
    opaque = alpha[..., None].astype(np.uint16)
    for row, opacity, white in zip(rgb, opaque, 255 - opaque, strict=True):
        colour = row if premultiplied else (row * opacity + 127) // 255
        row[:] = np.minimum(colour + white, 255)
    return rgb


def _remark(samples: NDArray[Any]) -> str:
    peak = int(samples.max(initial=0))
    if not 0 < peak <= TWELVE_BITS:
        return ""
    reach = f"its 16 bits reach {peak} of 65535, as 12 bits in 16 do"
    return f"{reach}: it is read as dark as a viewer shows it"
