"""The facts in the head of an image file, read before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


class Unreadable(Exception):
    """Why bytes give no picture, as the end of a sentence that the file's name begins."""


class CutShort(Unreadable):
    """The file ends, or lacks data, before its picture is whole."""

    def __init__(self, where: str) -> None:
        super().__init__(f"is cut short: {where}")


@dataclass(frozen=True)
class Scans:
    """Where a JPEG decoder may make something up.

    Attributes:
        ends: where the coded data of each restart interval ends, in bytes.
        doubtful: a decoder could fill a gap without a trace in the picture.
        grey: (x, y) of a pixel that is mid-grey where the interval's data did not suffice.
    """

    ends: tuple[int, ...]
    doubtful: bool
    grey: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Layout:
    """The head of a whole image file.

    Attributes:
        kind: the format's name.
        width: in pixels, before `turn`.
        height: see `width`.
        bits: of a sample: 1 to 16.
        peak: the value of white, where the file states another than its bits can hold.
        alpha: samples of transparency may be there.
        premultiplied: the decoder gives colours that were multiplied by alpha.
        turn: EXIF orientation, 1 to 8, that the decoder does not apply when asked not to.
        data: the bytes to decode; other than the file's where only an end mark was missing.
        scans: of a JPEG.
    """

    kind: str
    width: int
    height: int
    bits: int = 8
    peak: int = 0
    alpha: bool = False
    premultiplied: bool = False
    turn: int = 1
    data: bytes = field(default=b"", repr=False)
    scans: Scans | None = None
