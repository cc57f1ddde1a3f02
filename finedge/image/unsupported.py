"""Describes files that are not in a supported image format, so that an error can say why."""

from __future__ import annotations

import re

from finedge.image.boxes import brands

HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
FIRST_BYTES = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"8BPS": "a Photoshop file",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
    b"FLV\x01": "a video (FLV)",
    b"\x00\x00\x01\xba": "a video (MPEG)",
    b"OggS": "a video or sound (Ogg)",
    b"\xff\x0a": "a JPEG XL, which OpenCV does not read: convert it to JPEG or PNG",
    b"\0\0\0\x0cJXL ": "a JPEG XL, which OpenCV does not read: convert it to JPEG or PNG",
    b"\0\0\x01\0": "an icon (ICO), which OpenCV does not read: convert it to PNG",
    b"version https://git-lfs": "a Git LFS pointer, not the picture itself: run `git lfs pull`",
    b"#?RADIANCE": "a Radiance HDR, which defines no value for white: convert it to 8 bits",
    b"v/1\x01": "an OpenEXR, which defines no value for white: convert it to 8 bits",
}
PAGE = re.compile(
    rb"(?i)\s*(?:<!--.*?-->\s*)?<(!doctype html|html|head|body|\?xml|svg|script)",
    re.DOTALL,
)
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def describe_content(raw: bytes) -> str:
    """Return what the file is, as the end of a sentence: `is a PDF document`."""
    for magic, name in FIRST_BYTES.items():
        if raw.startswith(magic):
            return f"is {name}"
    file_brands = brands(raw)
    if file_brands & HEIF:
        return "is a HEIC, which OpenCV does not read: convert it to JPEG or PNG"
    if file_brands or raw[4:8] in (b"moov", b"mdat"):
        return "is a video (MP4 or MOV)"
    if raw[:4] == b"RIFF" and raw[8:11] == b"AVI":
        return "is a video (AVI)"
    page = PAGE.match(raw[:1024])
    if page is not None:
        drawing = b"<svg" in raw[:1024].lower()
        return "is a drawing (SVG)" if drawing else "is a web page (HTML), not a picture"
    if not raw.strip(b"\0"):
        return "holds only zeros: copying it failed"
    return f"is not an image: it begins with {_first(raw)}"


def _first(raw: bytes) -> str:
    if TEXT.fullmatch(raw[:16]):
        return f"the text {raw[:16].decode('utf-8', 'replace')!r}"
    return f"the bytes {raw[:8].hex(' ')}"
