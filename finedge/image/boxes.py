"""Formats made of ISO boxes: JPEG 2000 (ISO 15444-1) and AVIF."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from finedge.image.layout import CutShort, Layout, Unreadable

JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
SIZ = b"\xff\x4f\xff\x51"
MOST_BOXES = 10_000
SPATIAL = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)
TURNED = re.compile(rb"\0\0\0\x09(?:irot[\x01-\x03]|imir.)", re.DOTALL)
ALPHA = re.compile(rb"urn:mpeg:(?:mpegB:cicp:systems:auxiliary:alpha|hevc:2015:auxid:1)")


def boxes(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, where it begins, where it ends by its own word) of the boxes of a file."""
    at, count = 0, 0
    while at + 8 <= len(raw) and count < MOST_BOXES:
        size, head = int.from_bytes(raw[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(raw[at + 8 : at + 16], "big"), 16
        end = len(raw) if size == 0 else at + size
        if end < at + head:
            return
        yield raw[at + 4 : at + 8], at, end
        at, count = end, count + 1


def brands(raw: bytes) -> set[bytes]:
    """Return the brands of a file of boxes: avif, heic, mp42, ..."""
    if raw[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(raw[:4], "big"), 256, len(raw))
    return {raw[8:12], *(raw[at : at + 4] for at in range(16, end - 3, 4))}


def starts_jp2(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a JPEG 2000, in boxes or bare."""
    return raw.startswith((JP2, SIZ))


def jp2(raw: bytes) -> Layout:
    """Read the size of a JPEG 2000; a tile that is cut short is refused by the decoder.

    Raises:
        Unreadable: it has no size, or samples that are signed.
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
    return Layout("JPEG 2000", right - left, bottom - top, bits, alpha=count in (2, 4), data=raw)


def starts_avif(raw: bytes) -> bool:
    """Tell whether these are the first bytes of an AVIF."""
    return not brands(raw).isdisjoint({b"avif", b"avis"})


def avif(raw: bytes) -> Layout:
    """Read the size of an AVIF.

    Raises:
        Unreadable: a box goes past its end, it has no size, or is to be turned.
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
    if TURNED.search(meta):
        raise Unreadable("is an AVIF to be turned, which OpenCV does not do: convert it to PNG")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Layout("AVIF", width, height, alpha=ALPHA.search(meta) is not None, data=raw)
