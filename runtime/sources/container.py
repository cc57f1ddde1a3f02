"""Whether a video file is complete, by the sizes in its container; FFmpeg does not report it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from finedge.regular_files import open_regular

HEAD_BYTES = 65536
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
TS_PACKET_BYTES = 188
OGG_HEADER_BYTES = 27
ASF_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
# Results of an `ElementLength` that end the walk.
TO_THE_END = 0  # the element has no stated length, or no element follows: nothing is missing
BROKEN = -1  # the element cannot be complete
# (file at the element, bytes from there to the end) -> the length of the element, in bytes
ElementLength = Callable[[BinaryIO, int], int]


@dataclass(frozen=True)
class Container:
    """A container format: elements one after the other, each with its length.

    Attributes:
        matches: whether a file is of this format, by its first bytes.
        element_length: reads the length of an element, its header included.
        first_element: where the first element starts, by the first bytes.
        slack: bytes that may be missing at the end: padding that some writers leave out.
    """

    matches: Callable[[bytes], bool]
    element_length: ElementLength
    first_element: Callable[[bytes], int] = lambda head: 0
    slack: int = 0


def is_truncated(path: Path) -> bool:
    """Return whether an element of the file goes past its end; False where that is unknown.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD_BYTES)
        if _is_transport_stream(head):
            return size % TS_PACKET_BYTES != 0
        container = next((entry for entry in CONTAINERS if entry.matches(head)), None)
        return container is not None and _is_truncated(file, container, head=head, size=size)


def _is_truncated(file: BinaryIO, container: Container, *, head: bytes, size: int) -> bool:
    position = container.first_element(head)
    while position < size:
        file.seek(position)
        length = container.element_length(file, size - position)
        if length <= 0:
            return length == BROKEN
        position += length
    return position > size + container.slack


def _mp4_length(file: BinaryIO, left: int) -> int:
    """Return the length of a box: its first 4 bytes; if they are 1, the 8 bytes after its name."""
    head = file.read(16)
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    if left >= 8 and length == 0:  # up to the end of the file
        return TO_THE_END
    return length if left >= 8 and length >= 8 else BROKEN


def _riff_length(file: BinaryIO, left: int) -> int:
    """Return the length of a RIFF chunk; files over 1 GB have several. 0 was never filled in."""
    head = file.read(8)
    if left < 12 or head[:4] != b"RIFF":
        return TO_THE_END
    length = int.from_bytes(head[4:], "little")
    return 8 + length + length % 2 if length else BROKEN


def _matroska_length(file: BinaryIO, left: int) -> int:
    """Return the length of an element; of one of unknown length (live), only of its header."""
    head = file.read(12)
    _, name_bytes = _read_ebml(head, keep_marker=True)
    length, length_bytes = _read_ebml(head[name_bytes:], keep_marker=False)
    if not name_bytes or not length_bytes:
        return BROKEN if len(head) < 12 else TO_THE_END
    return name_bytes + length_bytes + (length or 0)


def _read_ebml(data: bytes, *, keep_marker: bool) -> tuple[int | None, int]:
    """Return a number of Matroska and its width in bytes.

    The number is None for "unknown length". The width is 0 where there is no number.
    """
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if not width or width > len(data):
        return None, 0
    value = int.from_bytes(data[:width], "big")
    if keep_marker:
        return value, width
    ones = (1 << 7 * width) - 1
    return (None if value & ones == ones else value & ones), width


def _flv_length(file: BinaryIO, left: int) -> int:
    """Return the length of a tag: 11 bytes of header, its data, 4 bytes with its size."""
    return 11 + int.from_bytes(file.read(4)[1:], "big") + 4


def _ogg_length(file: BinaryIO, left: int) -> int:
    """Return the length of a page: its header, a table of segments, the segments."""
    head = file.read(OGG_HEADER_BYTES)
    if len(head) < OGG_HEADER_BYTES:
        return BROKEN
    if not head.startswith(b"OggS"):
        return TO_THE_END
    return OGG_HEADER_BYTES + head[-1] + sum(file.read(head[-1]))


def _asf_length(file: BinaryIO, left: int) -> int:
    """Return the length of an object, after its GUID. A live recording does not state it."""
    length = int.from_bytes(file.read(24)[16:], "little")
    return length if left >= 24 and length >= 24 else TO_THE_END


def _is_transport_stream(head: bytes) -> bool:
    sync_bytes = head[0 : 5 * TS_PACKET_BYTES : TS_PACKET_BYTES]
    return sync_bytes != b"" and set(sync_bytes) == {0x47}


CONTAINERS = (
    Container(lambda head: head[4:8] in MP4_BOXES, _mp4_length),
    Container(lambda head: head.startswith(b"RIFF"), _riff_length, slack=1),
    Container(lambda head: head.startswith(b"\x1aE\xdf\xa3"), _matroska_length),
    Container(
        lambda head: head.startswith(b"FLV\x01"),
        _flv_length,
        first_element=lambda head: int.from_bytes(head[5:9], "big") + 4,
    ),
    Container(lambda head: head.startswith(b"OggS"), _ogg_length),
    Container(lambda head: head.startswith(ASF_GUID), _asf_length),
)
