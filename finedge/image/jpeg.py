"""JPEG (ITU T.81): whole when every scan up to the end mark has its data."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from finedge.image.exif import orientation
from finedge.image.layout import CutShort, Layout, Scans, Unreadable

EOI, SOS, DRI, APP1 = 0xD9, 0xDA, 0xDD, 0xE1
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = (0xC0, 0xC1)
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
ARITHMETIC = frozenset(range(0xC9, 0xD0))  # its coder may leave out bytes at the end of a scan
BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
MOST_SCANS = 200  # libjpeg's own tools warn of 500: each scan passes over the whole picture
ENDS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass
class _Walk:
    """The facts of the segments so far."""

    frame: int = 0
    bits: int = 8
    height: int = 0
    width: int = 0
    factors: tuple[tuple[int, int], ...] = ()
    interval: int = 0
    turn: int = 0
    # Of each component: the coefficients that have all their bits.
    sent: dict[int, set[int]] = field(default_factory=dict)
    scans: list[tuple[int, int]] = field(default_factory=list)  # of coded data: start, end
    ended: bool = False
    end: int = 0  # after the end mark


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a JPEG."""
    return raw.startswith(b"\xff\xd8\xff")


def layout(raw: bytes) -> Layout:
    """Walk the segments.

    Raises:
        Unreadable: it is cut short before its last scan, or of a kind that is not decoded.
    """
    walk = _walked(raw)
    if not walk.frame or not walk.scans:
        raise CutShort("it has no picture data")
    if len(walk.scans) > MOST_SCANS:
        raise Unreadable(f"has {len(walk.scans)} scans (at most {MOST_SCANS})")
    if _lacks_scans(walk):
        raise CutShort("scans are missing")
    if not walk.ended and walk.frame in ARITHMETIC:
        raise CutShort("it has no end mark")
    whole = raw if walk.ended else raw[: walk.scans[-1][1]] + bytes((0xFF, EOI))
    scans = None if walk.frame in ARITHMETIC else _scans(raw, walk)
    size = (walk.width, walk.height)
    return Layout("JPEG", *size, bits=walk.bits, turn=walk.turn or 1, data=whole, scans=scans)


def ends_whole(raw: bytes) -> bool:
    """Tell whether the last two bytes are the end mark of the JPEG that begins with the first."""
    try:
        walk = _walked(raw)
    except CutShort:
        return False
    return walk.ended and walk.end == len(raw)


def _walked(raw: bytes) -> _Walk:
    walk = _Walk()
    for marker, at, body in _segments(raw, walk):
        _take(walk, marker, body)
        if marker == SOS:
            walk.scans.append((at, _scan_end(raw, at)))
    return walk


def _segments(raw: bytes, walk: _Walk) -> Iterator[tuple[int, int, bytes]]:
    """Yield (marker, where its body ends, body); after an SOS go on where its scan ended."""
    at = 2
    while (found := ENDS.search(raw, at)) is not None:
        marker, at = raw[found.end() - 1], found.end()
        if marker == EOI:
            walk.ended, walk.end = True, at
            return
        if marker in BARE:
            continue
        length = int.from_bytes(raw[at : at + 2], "big")
        if at + max(length, 2) > len(raw):
            raise CutShort(f"a segment of {length} bytes goes past its end")
        body = raw[at + 2 : at + length]
        at += length
        yield marker, at, body
        if marker == SOS:
            at = walk.scans[-1][1]


def _take(walk: _Walk, marker: int, body: bytes) -> None:
    if marker in FRAMES and not walk.frame and len(body) >= 6:
        walk.frame, walk.bits = marker, body[0]
        walk.height, walk.width = struct.unpack_from(">HH", body, 1)
        walk.factors = tuple((b >> 4, b & 15) for b in body[7::3][: body[5]])
    elif marker == SOS and body:
        _note_sent(walk, body)
    elif marker == DRI and len(body) >= 2:
        walk.interval = int.from_bytes(body[:2], "big")
    elif marker == APP1 and body.startswith(b"Exif\0") and not walk.turn:
        walk.turn = orientation(body[6:])


def _note_sent(walk: _Walk, body: bytes) -> None:
    """Note which coefficients a scan completes: of a progressive one those with their last bit."""
    count = body[0]
    first, last, bits = (*body[1 + 2 * count : 4 + 2 * count], 0, 0, 0)[:3]
    if walk.frame not in PROGRESSIVE:
        first, last, bits = 0, 63, 0
    if bits & 15 == 0:
        for component in body[1 : 1 + 2 * count : 2]:
            walk.sent.setdefault(component, set()).update(range(first, min(last, 63) + 1))


def _lacks_scans(walk: _Walk) -> bool:
    return len(walk.sent) < len(walk.factors) or any(len(sent) < 64 for sent in walk.sent.values())


def _scan_end(raw: bytes, start: int) -> int:
    """Return where the data of a scan ends: at a marker that is no restart, or with the file."""
    found = ENDS.search(raw, start)
    end = found.start() if found else len(raw)
    while end > start and raw[end - 1] == 0xFF:  # fill bytes, or half a marker
        end -= 1
    return end


def _scans(raw: bytes, walk: _Walk) -> Scans:
    one = len(walk.scans) == 1 and walk.frame in SEQUENTIAL and len(walk.factors) in (1, 3)
    ends = [end for scan in walk.scans for end in _interval_ends(raw, *scan)]
    points = _grey_points(walk) if one else ()
    if walk.interval and points and len(ends) != len(points):
        raise CutShort(f"it has {len(ends)} of {len(points)} restart intervals")
    # A last column or row of one pixel mixes with its neighbour.
    return Scans(tuple(ends), not (one and walk.ended and _wide(walk)), points)


def _interval_ends(raw: bytes, start: int, end: int) -> list[int]:
    """Return where the data of each restart interval ends; marks count 0 to 7 in a circle."""
    marks = [found.start() for found in RESTARTS.finditer(raw, start, end)]
    if any(raw[at + 1] & 7 != n & 7 for n, at in enumerate(marks)):
        raise CutShort("a restart interval is missing")
    return [*marks, end]


def _block(walk: _Walk) -> tuple[int, int]:
    """Return the size in pixels of what is coded together."""
    if len(walk.factors) == 1:
        return 8, 8
    return 8 * max(f[0] for f in walk.factors), 8 * max(f[1] for f in walk.factors)


def _wide(walk: _Walk) -> bool:
    width, height = _block(walk)
    return bool(width and height) and walk.width % width != 1 and walk.height % height != 1


def _grey_points(walk: _Walk) -> tuple[tuple[int, int], ...]:
    """Return a pixel inside the last block of each restart interval."""
    width, height = _block(walk)
    if not width or not height:
        return ()
    across, down = -(-walk.width // width), -(-walk.height // height)
    blocks = across * down
    if not blocks:  # no width or no height: refused by its size later
        return ()
    lasts = [*range(walk.interval - 1, blocks - 1, walk.interval)] if walk.interval else []
    starts = ((n % across * width, n // across * height) for n in (*lasts, blocks - 1))
    right, bottom = walk.width - 1, walk.height - 1
    return tuple((min(x + width // 2, right), min(y + height // 2, bottom)) for x, y in starts)
