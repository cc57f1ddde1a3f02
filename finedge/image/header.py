"""The facts in the header of an image file, read before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


class Unreadable(Exception):
    """The reason why bytes cannot be decoded; the text follows the name of the file."""


class CutShort(Unreadable):
    """The file ends, or lacks data, before its picture is complete."""

    def __init__(self, where: str) -> None:
        super().__init__(f"is cut short: {where}")


@dataclass(frozen=True)
class Scans:
    """Where a JPEG decoder may invent pixels.

    Attributes:
        ends: where the coded data of each restart interval ends, in bytes.
        doubtful: a decoder could fill a gap without a trace in the picture.
        grey: (x, y) of one pixel per interval; it is mid-grey where the interval's data is too
            short.
    """

    ends: tuple[int, ...]
    doubtful: bool
    grey: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ImageHeader:
    """The header of a complete image file.

    Attributes:
        kind: the format's name.
        width: in pixels, before `turn`.
        height: see `width`.
        bits: bits per sample, 1 to 16.
        peak: the value of white, where the file states another than the largest of its bits.
        alpha: the file may hold transparency.
        premultiplied: the decoder returns colours that were multiplied by alpha.
        turn: EXIF orientation, 1 to 8; the decoder is called so that it does not apply it.
        data: the bytes to decode. They differ from the file where only an end mark was missing.
        scans: the scans of a JPEG.
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
