"""The table of image formats: suffixes, first bytes, and the function that reads the header."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2

from finedge.image import bitmap, boxes, gif, jpeg, png, riff, tiff, unsupported
from finedge.image.header import CutShort, ImageHeader, Unreadable


@dataclass(frozen=True)
class Format:
    """A format that is read.

    Attributes:
        suffixes: the suffixes of its files.
        starts: tells by the first bytes whether a file has this format.
        read_header: reads the header; it raises `Unreadable` where the file is incomplete.
        check: reads all data of a file, after its size was found small enough.
        optional: the format's name in OpenCV's build information, where a build may lack it.
    """

    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]
    read_header: Callable[[bytes], ImageHeader]
    check: Callable[[ImageHeader], None] | None = None
    optional: str = ""


# OpenCV reads others too: EXR, HDR and PFM define no value for white, Sun raster is out of use.
FORMATS: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), jpeg.starts, jpeg.read_header),
    "PNG": Format((".png",), png.starts, png.read_header, png.check),
    "WebP": Format((".webp",), riff.starts, riff.read_header, optional="WEBP"),
    "BMP": Format((".bmp", ".dib"), bitmap.starts_bmp, bitmap.read_bmp_header),
    "TIFF": Format((".tif", ".tiff"), tiff.starts, tiff.read_header, optional="TIFF"),
    "GIF": Format((".gif",), gif.starts, gif.read_header, optional="GIF"),
    "JPEG 2000": Format(
        (".jp2", ".j2k"), boxes.starts_jp2, boxes.read_jp2_header, optional="JPEG 2000"
    ),
    "AVIF": Format((".avif",), boxes.starts_avif, boxes.read_avif_header, optional="AVIF"),
    "PNM": Format((".pbm", ".pgm", ".pnm", ".ppm"), bitmap.starts_pnm, bitmap.read_pnm_header),
}
SUFFIXES = frozenset(suffix for format in FORMATS.values() for suffix in format.suffixes)


def read_header(raw: bytes) -> tuple[Format, ImageHeader]:
    """Return the format of a file from its bytes, and its header.

    Raises:
        Unreadable: the format is not supported, or the file is incomplete.
    """
    if not raw:
        raise Unreadable("is empty")
    for format in FORMATS.values():
        if format.starts(raw):
            return format, _read(format, raw)
    raise Unreadable(unsupported.describe_content(raw))


def is_known(raw: bytes) -> bool:
    """Tell by the first bytes whether a file has a supported format, complete or not."""
    return any(format.starts(raw) for format in FORMATS.values())


def reason_not_decoded(format: Format, header: ImageHeader) -> str:
    """Return why OpenCV could not decode a file whose structure is right."""
    if format.optional and not _is_built(format.optional):
        opencv = f"this build of OpenCV ({cv2.__version__})"
        return f"is of the format {header.kind}, which {opencv} does not read"
    return f"is damaged, or a kind of {header.kind} that OpenCV does not read"


@cache
def _is_built(name: str) -> bool:
    line = re.search(rf"(?m)^ *{re.escape(name)}: *(.*)$", cv2.getBuildInformation())
    return line is not None and not line[1].startswith("NO")


def _read(format: Format, raw: bytes) -> ImageHeader:
    try:
        return format.read_header(raw)
    except IndexError:  # the header ends before it is complete
        raise CutShort("its header is incomplete") from None
