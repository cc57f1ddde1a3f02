"""Whether a video file is whole, by the sizes in its container; FFmpeg does not report it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from finedge.regular_files import open_regular

HEAD = 65536
PACKET = 188  # of MPEG-TS
PAGE_HEAD = 27  # of Ogg
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_Walk = Callable[[BinaryIO, int], bool]


def stores_count(head: bytes) -> bool:
    """Tell whether the container stores its number of frames: AVI, and MP4 without fragments."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return b"mvex" not in head and b"moof" not in head
    return head.startswith(b"RIFF") and head[8:12] == b"AVI "


def is_cut(path: Path) -> bool:
    """Tell whether something in the file goes past its end; False where that is unknown.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        walk = _walk_of(head)
        return walk is not None and walk(file, size)


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, with what `stores_count` looks for.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
        if head[4:8] == b"ftyp":
            at = _find_box(file, b"moov", size=os.fstat(file.fileno()).st_size)
            file.seek(at)
            head += file.read(1 << 20)
        return head


def _walk_of(head: bytes) -> _Walk | None:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return _boxes_cut
    if head.startswith(b"RIFF"):
        return _riff_cut
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _matroska_cut
    if head.startswith(b"FLV\x01"):
        return _flv_cut
    if head.startswith(b"OggS"):
        return _ogg_cut
    if head.startswith(ASF):
        return _asf_cut
    packets = head[0 : 5 * PACKET : PACKET]
    return _packets_cut if packets and set(packets) == {0x47} else None


def _boxes_cut(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 8 <= size:
        length = _box_length(file, at)
        if length == 0:  # up to the end
            return False
        if length < 8:
            return True
        at += length
    return at != size


def _box_length(file: BinaryIO, at: int) -> int:
    file.seek(at)
    head = file.read(16)
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length


def _find_box(file: BinaryIO, name: bytes, *, size: int) -> int:
    """Return where a box of the top level begins, or 0."""
    at = 0
    while at + 8 <= size:
        file.seek(at + 4)
        if file.read(4) == name:
            return at
        length = _box_length(file, at)
        if length < 8:
            return 0
        at += length
    return 0


def _riff_cut(file: BinaryIO, size: int) -> bool:
    """Each of several RIFF chunks, in files over 1 GB, states its size; 0 was not filled in."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return False
        length = int.from_bytes(head[4:], "little")
        if length == 0:
            return True
        at += 8 + length + length % 2
    return at > size + 1


def _matroska_cut(file: BinaryIO, size: int) -> bool:
    """Walk the elements; those of unknown length, which live recordings have, are entered."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        name = _ebml(head, keep_mark=True)
        length = _ebml(head[name[1] :], keep_mark=False)
        if not name[1] or not length[1]:
            return len(head) < 12
        at += name[1] + length[1]
        if length[0] is not None:
            at += length[0]
    return at > size


def _ebml(data: bytes, *, keep_mark: bool) -> tuple[int | None, int]:
    """Return a number and how many bytes it takes; no number for "unknown", no bytes for none."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if not width or width > len(data):
        return None, 0
    value = int.from_bytes(data[:width], "big")
    ones = (1 << 7 * width) - 1
    if keep_mark:
        return value, width
    return (None if value & ones == ones else value & ones), width


def _flv_cut(file: BinaryIO, size: int) -> bool:
    file.seek(5)
    at = int.from_bytes(file.read(4), "big") + 4
    while at < size:
        file.seek(at + 1)
        at += 11 + int.from_bytes(file.read(3), "big") + 4
    return at > size


def _ogg_cut(file: BinaryIO, size: int) -> bool:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(PAGE_HEAD)
        if len(head) < PAGE_HEAD:
            return True
        if not head.startswith(b"OggS"):
            return False
        segments = file.read(head[-1])
        at += PAGE_HEAD + head[-1] + sum(segments)
    return at > size


def _asf_cut(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 24 <= size:
        file.seek(at + 16)
        length = int.from_bytes(file.read(8), "little")
        if length < 24:  # a live recording does not know
            return False
        at += length
    return at > size


def _packets_cut(file: BinaryIO, size: int) -> bool:
    return size % PACKET != 0
