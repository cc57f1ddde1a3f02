"""Reads the header of a JPEG (ITU T.81). It is complete when every scan has its data."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from finedge.image.exif import orientation
from finedge.image.header import CutShort, ImageHeader, Scans, Unreadable

EOI, SOS, DRI, APP1 = 0xD9, 0xDA, 0xDD, 0xE1
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = (0xC0, 0xC1)
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
ARITHMETIC = frozenset(range(0xC9, 0xD0))  # this coder may omit bytes at the end of a scan
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
MAX_SCANS = 200  # libjpeg's own tools warn of 500: each scan passes over the whole picture
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass
class _JpegFacts:
    """The facts of the segments that were read so far.

    Attributes:
        frame: the marker of the frame (SOF), 0 before it.
        bits: bits per sample.
        height: in pixels.
        width: in pixels.
        factors: (horizontal, vertical) sampling factors of each component.
        interval: coded blocks in a restart interval, 0 without restarts.
        turn: EXIF orientation, 0 without one.
        complete: of each component, the coefficients that have all their bits.
        scans: (start, end) of the coded data of each scan, in bytes.
        ended: the end mark was read.
        end: the position after the end mark, in bytes.
    """

    frame: int = 0
    bits: int = 8
    height: int = 0
    width: int = 0
    factors: tuple[tuple[int, int], ...] = ()
    interval: int = 0
    turn: int = 0
    complete: dict[int, set[int]] = field(default_factory=dict)
    scans: list[tuple[int, int]] = field(default_factory=list)
    ended: bool = False
    end: int = 0


def starts(raw: bytes) -> bool:
    """Tell whether these are the first bytes of a JPEG."""
    return raw.startswith(b"\xff\xd8\xff")


def read_header(raw: bytes) -> ImageHeader:
    """Walk the facts.

    Raises:
        Unreadable: the file ends before its last scan, or has more than MAX_SCANS.
    """
    facts = _read_facts(raw)
    if not facts.frame or not facts.scans:
        raise CutShort("it has no picture data")
    if len(facts.scans) > MAX_SCANS:
        raise Unreadable(f"has {len(facts.scans)} scans (at most {MAX_SCANS})")
    if _lacks_scans(facts):
        raise CutShort("scans are missing")
    if not facts.ended and facts.frame in ARITHMETIC:
        raise CutShort("it has no end mark")
    data = raw if facts.ended else raw[: facts.scans[-1][1]] + bytes((0xFF, EOI))
    scans = None if facts.frame in ARITHMETIC else _scans(raw, facts)
    return ImageHeader(
        "JPEG",
        facts.width,
        facts.height,
        bits=facts.bits,
        turn=facts.turn or 1,
        data=data,
        scans=scans,
    )


def ends_whole(raw: bytes) -> bool:
    """Tell whether the last two bytes are the end mark of the JPEG that begins with the first."""
    try:
        facts = _read_facts(raw)
    except CutShort:
        return False
    return facts.ended and facts.end == len(raw)


def _read_facts(raw: bytes) -> _JpegFacts:
    facts = _JpegFacts()
    for marker, at, body in _walk_segments(raw, facts):
        _take(facts, marker, body)
        if marker == SOS:
            facts.scans.append((at, _scan_end(raw, at)))
    return facts


def _walk_segments(raw: bytes, facts: _JpegFacts) -> Iterator[tuple[int, int, bytes]]:
    """Yield (marker, end of its body in bytes, body); an SOS is followed by the end of its scan."""
    at = 2
    while (match := SCAN_END.search(raw, at)) is not None:
        marker, at = raw[match.end() - 1], match.end()
        if marker == EOI:
            facts.ended, facts.end = True, at
            return
        if marker in WITHOUT_LENGTH:
            continue
        length = int.from_bytes(raw[at : at + 2], "big")
        if at + max(length, 2) > len(raw):
            raise CutShort(f"a segment of {length} bytes goes past its end")
        body = raw[at + 2 : at + length]
        at += length
        yield marker, at, body
        if marker == SOS:
            at = facts.scans[-1][1]


def _take(facts: _JpegFacts, marker: int, body: bytes) -> None:
    if marker in FRAMES and not facts.frame and len(body) >= 6:
        facts.frame, facts.bits = marker, body[0]
        facts.height, facts.width = struct.unpack_from(">HH", body, 1)
        facts.factors = tuple((b >> 4, b & 15) for b in body[7::3][: body[5]])
    elif marker == SOS and body:
        _note_complete(facts, body)
    elif marker == DRI and len(body) >= 2:
        facts.interval = int.from_bytes(body[:2], "big")
    elif marker == APP1 and body.startswith(b"Exif\0") and not facts.turn:
        facts.turn = orientation(body[6:])


def _note_complete(facts: _JpegFacts, body: bytes) -> None:
    """Note which coefficients a scan completes.

    A progressive scan completes those whose last bit it holds.
    """
    count = body[0]
    first, last, bits = (*body[1 + 2 * count : 4 + 2 * count], 0, 0, 0)[:3]
    if facts.frame not in PROGRESSIVE:
        first, last, bits = 0, 63, 0
    if bits & 15 == 0:
        for component in body[1 : 1 + 2 * count : 2]:
            facts.complete.setdefault(component, set()).update(range(first, min(last, 63) + 1))


def _lacks_scans(facts: _JpegFacts) -> bool:
    if len(facts.complete) < len(facts.factors):
        return True
    return any(len(coefficients) < 64 for coefficients in facts.complete.values())


def _scan_end(raw: bytes, start: int) -> int:
    """Return where the data of a scan ends: at a marker other than a restart, or with the file."""
    match = SCAN_END.search(raw, start)
    end = match.start() if match else len(raw)
    while end > start and raw[end - 1] == 0xFF:  # fill bytes, or half a marker
        end -= 1
    return end


def _scans(raw: bytes, facts: _JpegFacts) -> Scans:
    one_scan = len(facts.scans) == 1 and facts.frame in SEQUENTIAL
    simple = one_scan and len(facts.factors) in (1, 3)
    ends = [end for scan in facts.scans for end in _interval_ends(raw, *scan)]
    points = _grey_points(facts) if simple else ()
    if facts.interval and points and len(ends) != len(points):
        raise CutShort(f"it has {len(ends)} of {len(points)} restart intervals")
    # A last column or row of one pixel mixes with its neighbour.
    doubtful = not (simple and facts.ended and _wide(facts))
    return Scans(tuple(ends), doubtful, points)


def _interval_ends(raw: bytes, start: int, end: int) -> list[int]:
    """Return where the data of each restart interval ends; marks count from 0 to 7, then from 0."""
    marks = [match.start() for match in RESTARTS.finditer(raw, start, end)]
    if any(raw[at + 1] & 7 != n & 7 for n, at in enumerate(marks)):
        raise CutShort("a restart interval is missing")
    return [*marks, end]


def _block(facts: _JpegFacts) -> tuple[int, int]:
    """Return (width, height) in pixels of the blocks that are coded together (an MCU)."""
    if len(facts.factors) == 1:
        return 8, 8
    return 8 * max(f[0] for f in facts.factors), 8 * max(f[1] for f in facts.factors)


def _wide(facts: _JpegFacts) -> bool:
    """Tell whether the last column and row of blocks are wider than one pixel."""
    width, height = _block(facts)
    return bool(width and height) and facts.width % width != 1 and facts.height % height != 1


def _grey_points(facts: _JpegFacts) -> tuple[tuple[int, int], ...]:
    """Return a pixel inside the last block of each restart interval."""
    width, height = _block(facts)
    if not width or not height:
        return ()
    across, down = -(-facts.width // width), -(-facts.height // height)
    blocks = across * down
    if not blocks:  # no width or no height: the check of the size refuses it later
        return ()
    step = facts.interval
    last_blocks = [*(range(step - 1, blocks - 1, step) if step else ()), blocks - 1]
    corners = ((n % across * width, n // across * height) for n in last_blocks)
    right, bottom = facts.width - 1, facts.height - 1
    return tuple((min(x + width // 2, right), min(y + height // 2, bottom)) for x, y in corners)
