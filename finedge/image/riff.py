"""Reads the header of a WebP (RFC 9649). It is complete if it has the length that it states."""

from __future__ import annotations

from collections.abc import Iterator

from finedge.image.exif import orientation
from finedge.image.header import CutShort, ImageHeader, Unreadable

ALPHA = 0x10  # flag of VP8X


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a WebP."""
    return raw.startswith(b"RIFF") and raw[8:12] == b"WEBP"


def read_header(raw: bytes) -> ImageHeader:
    """Read the chunks.

    Raises:
        Unreadable: it is shorter than its header states, or has no picture.
    """
    size = 8 + int.from_bytes(raw[4:8], "little")
    if size > len(raw):
        raise CutShort(f"it has {len(raw)} of the {size} bytes that its header announces")
    chunks = list(_chunks(raw, size))
    exif = next((body for name, body in chunks if name == b"EXIF"), b"")
    turn = orientation(exif.removeprefix(b"Exif\0\0"))
    for name, body in chunks:
        if (size_and_alpha := _size_and_alpha(name, body)) is not None:
            width, height, alpha = size_and_alpha
            return ImageHeader("WebP", width, height, alpha=alpha, turn=turn, data=raw)
    raise Unreadable("is a WebP without a picture")


def _chunks(raw: bytes, size: int) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= size:
        length = int.from_bytes(raw[at + 4 : at + 8], "little")
        yield raw[at : at + 4], raw[at + 8 : min(at + 8 + length, size)]
        at += 8 + length + length % 2


def _size_and_alpha(name: bytes, body: bytes) -> tuple[int, int, bool] | None:
    """Return (width, height, whether there may be alpha) of a chunk; None if it has no size."""
    if name == b"VP8X" and len(body) >= 10:
        return (
            1 + int.from_bytes(body[4:7], "little"),
            1 + int.from_bytes(body[7:10], "little"),
            bool(body[0] & ALPHA),
        )
    if name == b"VP8 " and len(body) >= 10:
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
            False,
        )
    if name == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    return None
