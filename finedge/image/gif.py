"""Reads the header of a GIF (89a). Its first picture is used, and must be complete."""

from __future__ import annotations

import struct

from finedge.image.header import CutShort, ImageHeader, Unreadable

PICTURE, EXTENSION = 0x2C, 0x21


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a GIF."""
    return raw.startswith((b"GIF87a", b"GIF89a"))


def read_header(raw: bytes) -> ImageHeader:
    """Read the blocks up to the end of the first picture.

    Raises:
        Unreadable: the file ends before that, or has no picture.
    """
    if len(raw) < 13:
        raise CutShort("it has no header")
    width, height, flags = struct.unpack_from("<HHB", raw, 6)
    at = 13 + _table_size(flags)
    while at + 1 < len(raw):
        if raw[at] == PICTURE and at + 10 < len(raw):
            _after_blocks(raw, at + 11 + _table_size(raw[at + 9]))
            return ImageHeader("GIF", width, height, alpha=True, data=raw)
        if raw[at] != EXTENSION:
            raise Unreadable("is a GIF without a picture")
        at = _after_blocks(raw, at + 2)
    raise CutShort("it has no picture data")


def _table_size(flags: int) -> int:
    """Return the size in bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(raw: bytes, at: int) -> int:
    """Return the position after a chain of blocks."""
    while at < len(raw):
        if raw[at] == 0:
            return at + 1
        at += 1 + raw[at]
    raise CutShort("the data of its first picture has no end")
