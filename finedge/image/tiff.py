"""Reads the header of a TIFF (6.0 or BigTIFF).

The file is complete when it holds every strip or tile of the first picture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from finedge.image.header import CutShort, ImageHeader, Unreadable

WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, EXTRA, FORMAT = 256, 257, 258, 262, 277, 338, 339
PLACES = ((273, 279), (324, 325))  # offsets and sizes in bytes: of strips, of tiles
SIZES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8)}
READ_TAGS = frozenset(
    {
        WIDTH,
        HEIGHT,
        BITS,
        PHOTOMETRIC,
        SAMPLES,
        EXTRA,
        FORMAT,
        *PLACES[0],
        *PLACES[1],
    }
)
MAX_VALUES = 1_000_000  # strips of one row each, of the tallest picture
UNSIGNED, FLOAT = 1, 3
FORMATS = {2: "signed", FLOAT: "float", 5: "complex", 6: "complex"}
ASSOCIATED, UNASSOCIATED = 1, 2
RGB = 2
DEPTHS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class _ByteFormat:
    """How numbers are stored: byte order, and the field widths of TIFF or BigTIFF."""

    order: str
    big: bool

    def directory(self, raw: bytes) -> dict[int, tuple[int, ...]]:
        """Return the values of READ_TAGS in the first directory."""
        start = self.number(raw, 8 if self.big else 4, "Q" if self.big else "I")
        count = self.number(raw, start, "Q" if self.big else "H")
        first, step = (start + 8, 20) if self.big else (start + 2, 12)
        tags = {}
        for at in range(first, first + step * min(count, 4096), step):
            tag = self.number(raw, at, "H")
            if tag in READ_TAGS:
                tags[tag] = self._values(raw, at)
        return tags

    def number(self, raw: bytes, at: int, code: str) -> int:
        try:
            return int(struct.unpack_from(self.order + code, raw, at)[0])
        except (struct.error, OverflowError):  # an offset of BigTIFF may pass ssize_t
            raise CutShort("its directory goes past its end") from None

    def _values(self, raw: bytes, at: int) -> tuple[int, ...]:
        kind, count = (
            self.number(raw, at + 2, "H"),
            self.number(raw, at + 4, "Q" if self.big else "I"),
        )
        if kind not in SIZES or count > MAX_VALUES:
            raise Unreadable(f"is damaged: a tag of {count} values of type {kind}")
        code, size = SIZES[kind]
        inline, wide = (12, 8) if self.big else (8, 4)
        at += inline
        if count * size > wide:
            at = self.number(raw, at, "Q" if self.big else "I")
        if at + count * size > len(raw):
            raise CutShort("its directory goes past its end")
        return struct.unpack_from(f"{self.order}{count}{code}", raw, at)


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a TIFF."""
    return raw[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_header(raw: bytes) -> ImageHeader:
    """Read the first directory.

    Raises:
        Unreadable: a strip or tile is missing, or the samples are not unsigned integers.
    """
    byte_format = _ByteFormat("<" if raw.startswith(b"II") else ">", big=b"+" in raw[2:4])
    tags = byte_format.directory(raw)
    width, height = (tags.get(tag, (0,))[0] for tag in (WIDTH, HEIGHT))
    bits, kind = max(tags.get(BITS, (1,)), default=1), max(tags.get(FORMAT, (UNSIGNED,)), default=1)
    if kind in FORMATS:
        what = f"has {FORMATS[kind]} samples of {bits} bits, which define no value for white"
        raise Unreadable(f"{what}: convert it to 8 bits")
    if bits not in DEPTHS:
        raise Unreadable(f"has the unknown bit depth {bits} (known: {', '.join(map(str, DEPTHS))})")
    _check_places(tags, len(raw))
    extra, samples = set(tags.get(EXTRA, ())), tags.get(SAMPLES, (1,))[0]
    fourth = samples == 4 and tags.get(PHOTOMETRIC, (RGB,))[0] == RGB
    alpha = fourth or bool(extra & {ASSOCIATED, UNASSOCIATED})
    # libtiff multiplies the colours of 8 bits by alpha; OpenCV reads 16 bits as they are.
    premultiplied = bits <= 8 or ASSOCIATED in extra
    return ImageHeader(
        "TIFF", width, height, bits, alpha=alpha, premultiplied=premultiplied, data=raw
    )


def _check_places(tags: dict[int, tuple[int, ...]], size: int) -> None:
    for offsets, counts in PLACES:
        places = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        missing = sum(at + count > size for at, count in places)
        if missing:
            parts = f"{missing} of the {len(tags[offsets])} parts"
            raise CutShort(f"{parts} of its picture go past its end")
    if not any(offsets in tags for offsets, _ in PLACES):
        raise CutShort("it has no picture data")
