"""The table of image formats: how each begins, how it is named, and who reads its head."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2

from finedge.image import bitmap, boxes, gif, jpeg, png, riff, strangers, tiff
from finedge.image.layout import CutShort, Layout, Unreadable


@dataclass(frozen=True)
class Format:
    """A format that is read.

    Attributes:
        suffixes: of its files.
        starts: tells it by the first bytes.
        layout: reads the head, and raises `Unreadable` where the file is not whole.
        check: looks at all data of a file whose size is known to be bearable.
        optional: its name in OpenCV's list of what a build can read, where a build may lack it.
    """

    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]
    layout: Callable[[bytes], Layout]
    check: Callable[[Layout], None] | None = None
    optional: str = ""


# What OpenCV reads besides, names no white (EXR, HDR, PFM) or has gone out of use (Sun raster).
FORMATS: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), jpeg.starts, jpeg.layout),
    "PNG": Format((".png",), png.starts, png.layout, png.check),
    "WebP": Format((".webp",), riff.starts, riff.layout, optional="WEBP"),
    "BMP": Format((".bmp", ".dib"), bitmap.starts_bmp, bitmap.bmp),
    "TIFF": Format((".tif", ".tiff"), tiff.starts, tiff.layout, optional="TIFF"),
    "GIF": Format((".gif",), gif.starts, gif.layout, optional="GIF"),
    "JPEG 2000": Format((".jp2", ".j2k"), boxes.starts_jp2, boxes.jp2, optional="JPEG 2000"),
    "AVIF": Format((".avif",), boxes.starts_avif, boxes.avif, optional="AVIF"),
    "PNM": Format((".pbm", ".pgm", ".pnm", ".ppm"), bitmap.starts_pnm, bitmap.pnm),
}
SUFFIXES = frozenset(suffix for format in FORMATS.values() for suffix in format.suffixes)


def layout_of(raw: bytes) -> tuple[Format, Layout]:
    """Return the format of the bytes of a file, and its head.

    Raises:
        Unreadable: it is of no format that is read, or not whole.
    """
    if not raw:
        raise Unreadable("is empty")
    for format in FORMATS.values():
        if format.starts(raw):
            return format, _read(format, raw)
    raise Unreadable(strangers.described(raw))


def why_not(format: Format, layout: Layout) -> str:
    """Return why OpenCV gave no picture of a file whose structure is right."""
    if format.optional and not _built(format.optional):
        opencv = f"this build of OpenCV ({cv2.__version__})"
        return f"is of the format {layout.kind}, which {opencv} does not read"
    return f"is damaged, or a kind of {layout.kind} that OpenCV does not read"


@cache
def _built(name: str) -> bool:
    line = re.search(rf"(?m)^ *{re.escape(name)}: *(.*)$", cv2.getBuildInformation())
    return line is not None and not line[1].startswith("NO")


def _read(format: Format, raw: bytes) -> Layout:
    try:
        return format.layout(raw)
    except IndexError:  # of a look past the last byte
        raise CutShort("its head is not whole") from None
