"""Reads the headers of BMP and PNM (PBM, PGM, PPM): formats of plain rows."""

from __future__ import annotations

import re

from finedge.image.header import CutShort, ImageHeader, Unreadable

CORE_HEADER = 12
PLAIN, FIELDS = 0, 3  # the BMP compressions without run lengths
# Magic number, width, height and (except for bitmaps) the value of white. Blanks and comments
# stand between them.
GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
PNM = re.compile(
    rb"P([1-6])" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,9})(?:" + GAP + rb"(\d{1,5}))?"
)
BITMAPS, ASCII = (1, 4), (1, 2, 3)


def starts_bmp(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a BMP."""
    return raw.startswith(b"BM") and len(raw) >= 26


def read_bmp_header(raw: bytes) -> ImageHeader:
    """Read the header of a BMP.

    Raises:
        Unreadable: rows are missing.
    """
    start, header_size = int.from_bytes(raw[10:14], "little"), int.from_bytes(raw[14:18], "little")
    if header_size == CORE_HEADER:
        sizes, bits, packing = (raw[18:20], raw[20:22]), int.from_bytes(raw[24:26], "little"), PLAIN
    else:
        sizes, bits = (raw[18:22], raw[22:26]), int.from_bytes(raw[28:30], "little")
        packing = int.from_bytes(raw[30:34], "little")
    signed = header_size != CORE_HEADER
    width, height = (abs(int.from_bytes(side, "little", signed=signed)) for side in sizes)
    rows = (width * bits + 31) // 32 * 4 * height if packing in (PLAIN, FIELDS) else 0
    if start + rows > len(raw):
        raise CutShort(f"it has {len(raw)} of {start + rows} bytes")
    return ImageHeader("BMP", width, height, data=raw)


def starts_pnm(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a PBM, PGM or PPM."""
    return re.match(rb"P[1-6]\s", raw) is not None


def read_pnm_header(raw: bytes) -> ImageHeader:
    """Read the header of a PNM; `peak` is its white where that is not 255 or 65535.

    Raises:
        Unreadable: rows are missing.
    """
    header = PNM.match(raw)
    if header is None:
        raise CutShort("its header is incomplete")
    kind, width, height = int(header[1]), int(header[2]), int(header[3])
    if kind in BITMAPS:
        header_end, peak, row = header.end(3), 1, (width + 7) // 8
    else:
        header_end, peak = header.end(), int(header[4] or 0)
        row = width * (3 if kind in (3, 6) else 1) * (2 if peak > 255 else 1)
    if not 0 < peak < 65536:
        raise Unreadable(f"has the value {peak} for white (1 to 65535)")
    size = header_end + 1 + row * height
    if kind not in ASCII and size > len(raw):
        raise CutShort(f"it has {len(raw)} of {size} bytes")
    if kind in ASCII and not raw[-1:].isspace():
        raise CutShort("its last number may be incomplete")
    unusual_peak = 0 if kind in BITMAPS or peak in (255, 65535) else peak
    return ImageHeader("PNM", width, height, 16 if peak > 255 else 8, peak=unusual_peak, data=raw)
