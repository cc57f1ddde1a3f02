"""Formats of plain rows: BMP and PNM (PBM, PGM, PPM)."""

from __future__ import annotations

import re

from finedge.image.layout import CutShort, Layout, Unreadable

CORE_HEADER = 12
PLAIN, FIELDS = 0, 3  # BMP's compressions without runs
# Magic, width, height and, but for bitmaps, white; between them blanks and comments.
GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
PNM = re.compile(
    rb"P([1-6])" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,9})(?:" + GAP + rb"(\d{1,5}))?"
)
BITMAPS, ASCII = (1, 4), (1, 2, 3)


def starts_bmp(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a BMP."""
    return raw.startswith(b"BM") and len(raw) >= 26


def bmp(raw: bytes) -> Layout:
    """Read the head of a BMP.

    Raises:
        Unreadable: its rows are not all there.
    """
    start, header = int.from_bytes(raw[10:14], "little"), int.from_bytes(raw[14:18], "little")
    if header == CORE_HEADER:
        sizes, bits, packing = (raw[18:20], raw[20:22]), int.from_bytes(raw[24:26], "little"), PLAIN
    else:
        sizes, bits = (raw[18:22], raw[22:26]), int.from_bytes(raw[28:30], "little")
        packing = int.from_bytes(raw[30:34], "little")
    signed = header != CORE_HEADER
    width, height = (abs(int.from_bytes(side, "little", signed=signed)) for side in sizes)
    rows = (width * bits + 31) // 32 * 4 * height if packing in (PLAIN, FIELDS) else 0
    if start + rows > len(raw):
        raise CutShort(f"it has {len(raw)} of {start + rows} bytes")
    return Layout("BMP", width, height, data=raw)


def starts_pnm(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a PBM, PGM or PPM."""
    return re.match(rb"P[1-6]\s", raw) is not None


def pnm(raw: bytes) -> Layout:
    """Read the head of a PNM; `peak` is its white where that is not 255 or 65535.

    Raises:
        Unreadable: its rows are not all there.
    """
    head = PNM.match(raw)
    if head is None:
        raise CutShort("its head is not whole")
    kind, width, height = int(head[1]), int(head[2]), int(head[3])
    if kind in BITMAPS:
        head_end, peak, row = head.end(3), 1, (width + 7) // 8
    else:
        head_end, peak = head.end(), int(head[4] or 0)
        row = width * (3 if kind in (3, 6) else 1) * (2 if peak > 255 else 1)
    if not 0 < peak < 65536:
        raise Unreadable(f"has {peak} for white (1 to 65535)")
    if kind not in ASCII and head_end + 1 + row * height > len(raw):
        raise CutShort(f"it has {len(raw)} of {head_end + 1 + row * height} bytes")
    if kind in ASCII and not raw[-1:].isspace():
        raise CutShort("its last number may not be whole")
    odd = 0 if kind in BITMAPS or peak in (255, 65535) else peak
    return Layout("PNM", width, height, 16 if peak > 255 else 8, peak=odd, data=raw)
