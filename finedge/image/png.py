"""Reads the header of a PNG (ISO 15948). It is complete when its chunks hold every row."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from finedge.image.exif import orientation
from finedge.image.header import CutShort, ImageHeader, Unreadable

MAGIC = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column, first row, step across, step down of each pass
PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
PIECE = 1 << 16
END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a PNG."""
    return raw.startswith(MAGIC)


def read_header(raw: bytes) -> ImageHeader:
    """Read the chunks.

    Raises:
        Unreadable: a chunk is damaged, or rows are missing.
    """
    ihdr, rows, turn, alpha, end = b"", list[bytes](), 1, False, len(MAGIC)
    for name, body, end in _chunks(raw):  # noqa: B007 - `end` is used after the loop
        if name == b"IHDR":
            ihdr = body
        elif name == b"IDAT":
            rows.append(body)
        elif name == b"eXIf":
            turn = orientation(body)
        alpha |= name == b"tRNS"
    if len(ihdr) != 13:
        raise CutShort("it has no header")
    width, height, bits, colour = struct.unpack_from(">IIBB", ihdr)
    if colour not in CHANNELS:
        raise Unreadable(f"is a PNG of the unknown colour type {colour}")
    data = raw if raw[end - 8 : end - 4] == b"IEND" else raw[:end] + END
    alpha |= colour in (4, 6)
    return ImageHeader("PNG", width, height, bits, alpha=alpha, turn=turn, data=data)


def check(header: ImageHeader) -> None:
    """Inflate all rows without keeping them.

    Raises:
        Unreadable: rows are missing or damaged.
    """
    chunks = [(name, body) for name, body, _ in _chunks(header.data)]
    ihdr = next(body for name, body in chunks if name == b"IHDR")
    bits = header.bits * CHANNELS[ihdr[9]]
    expected = _size(header.width, header.height, bits, interlaced=bool(ihdr[12]))
    size = _inflated_size([body for name, body in chunks if name == b"IDAT"], expected)
    if size < expected:
        raise CutShort("rows of its picture are missing")


def _inflated_size(pieces: list[bytes], enough: int) -> int:
    """Return how many bytes the pieces inflate to; it stops after `enough` bytes."""
    stream, size = zlib.decompressobj(), 0
    try:
        for piece in pieces:
            while piece and size < enough and not stream.eof:
                size += len(stream.decompress(piece, PIECE))
                piece = stream.unconsumed_tail
        return size + len(stream.flush()) if size < enough else size
    except zlib.error as error:
        raise Unreadable(f"is damaged: {error}") from None


def _size(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Return the bytes of all rows, with a filter byte for each; `bits` is per pixel."""
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    return sum((1 + (w * bits + 7) // 8) * h for w, h in sizes if w > 0 and h > 0)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield (name, body, end in bytes) of every complete chunk, up to the last."""
    at = len(MAGIC)
    while at + 12 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        end = at + 12 + length
        if end > len(raw):  # `check` tells whether rows are missing
            return
        name, body = raw[at + 4 : at + 8], raw[at + 8 : end - 4]
        critical = not name[0] & 0x20
        stated = int.from_bytes(raw[end - 4 : end], "big")
        if critical and zlib.crc32(body, zlib.crc32(name)) != stated:
            raise Unreadable(f"is damaged: the checksum of its chunk {name!r} is wrong")
        yield name, body, end
        if name == b"IEND":
            return
        at = end
