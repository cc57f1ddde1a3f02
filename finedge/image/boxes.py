"""Reads the headers of formats made of ISO boxes: JPEG 2000 (ISO 15444-1) and AVIF."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from finedge.image.header import CutShort, ImageHeader, Unreadable

JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
SIZ = b"\xff\x4f\xff\x51"
MAX_BOXES = 10_000
SPATIAL = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)
ROTATED = re.compile(rb"\0\0\0\x09(?:irot[\x01-\x03]|imir.)", re.DOTALL)
ALPHA = re.compile(rb"urn:mpeg:(?:mpegB:cicp:systems:auxiliary:alpha|hevc:2015:auxid:1)")


def boxes(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, stated end) of each box of a file, in bytes."""
    start, count = 0, 0
    while start + 8 <= len(raw) and count < MAX_BOXES:
        size, header_size = int.from_bytes(raw[start : start + 4], "big"), 8
        if size == 1:
            size, header_size = int.from_bytes(raw[start + 8 : start + 16], "big"), 16
        end = len(raw) if size == 0 else start + size
        if end < start + header_size:
            return
        yield raw[start + 4 : start + 8], start, end
        start, count = end, count + 1


def brands(raw: bytes) -> set[bytes]:
    """Return the brands of a file of boxes: avif, heic, mp42, ..."""
    if raw[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(raw[:4], "big"), 256, len(raw))
    return {raw[8:12], *(raw[at : at + 4] for at in range(16, end - 3, 4))}


def starts_jp2(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a JPEG 2000, with or without boxes."""
    return raw.startswith((JP2, SIZ))


def read_jp2_header(raw: bytes) -> ImageHeader:
    """Read the size of a JPEG 2000. The decoder refuses a tile that is cut short.

    Raises:
        Unreadable: the size is missing, or the samples are signed.
    """
    start = raw.find(SIZ)
    if start < 0 or start + 43 > len(raw):
        raise CutShort("it has no picture data")
    right, bottom, left, top = struct.unpack_from(">4I", raw, start + 8)
    depth = raw[start + 42]
    count = int.from_bytes(raw[start + 40 : start + 42], "big")
    bits = (depth & 0x7F) + 1
    if depth & 0x80 or bits not in (8, 16):
        sign = "-" if depth & 0x80 else ""
        raise Unreadable(f"has the unknown bit depth {sign}{bits} (known: 8, 16)")
    return ImageHeader(
        "JPEG 2000", right - left, bottom - top, bits, alpha=count in (2, 4), data=raw
    )


def starts_avif(raw: bytes) -> bool:
    """Tell whether these are the first bytes of an AVIF."""
    return not brands(raw).isdisjoint({b"avif", b"avis"})


def read_avif_header(raw: bytes) -> ImageHeader:
    """Read the size of an AVIF.

    Raises:
        Unreadable: a box is longer than the file, the size is missing, or the picture is stored
            rotated.
    """
    meta = b""
    for name, start, end in boxes(raw):
        if end > len(raw):
            raise CutShort(f"its box {name!r} has {len(raw) - start} of {end - start} bytes")
        if name in (b"meta", b"moov"):
            meta = meta or raw[start:end]
    sizes = [struct.unpack(">II", a + b) for a, b in SPATIAL.findall(meta)]
    if not sizes:
        raise Unreadable("is an AVIF without a picture")
    if ROTATED.search(meta):
        raise Unreadable("is a rotated AVIF, which OpenCV does not turn upright: convert it to PNG")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return ImageHeader("AVIF", width, height, alpha=ALPHA.search(meta) is not None, data=raw)
