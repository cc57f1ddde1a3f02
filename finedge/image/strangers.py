"""What bytes are that are no picture of a known format: a refusal names the true reason."""

from __future__ import annotations

import re

from finedge.image.boxes import brands

HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
FIRST = {
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
    b"#?RADIANCE": "a Radiance HDR, which names no white: convert it to 8 bits",
    b"v/1\x01": "an OpenEXR, which names no white: convert it to 8 bits",
}
PAGE = re.compile(
    rb"(?i)\s*(?:<!--.*?-->\s*)?<(!doctype html|html|head|body|\?xml|svg|script)",
    re.DOTALL,
)
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def described(raw: bytes) -> str:
    """Return what `raw` is, with an article where that is known."""
    for magic, what in FIRST.items():
        if raw.startswith(magic):
            return f"is {what}"
    found = brands(raw)
    if found & HEIF:
        return "is a HEIC, which OpenCV does not read: convert it to JPEG or PNG"
    if found or raw[4:8] in (b"moov", b"mdat"):
        return "is a video (MP4 or MOV)"
    if raw[:4] == b"RIFF" and raw[8:11] == b"AVI":
        return "is a video (AVI)"
    page = PAGE.match(raw[:1024])
    if page is not None:
        drawing = b"<svg" in raw[:1024].lower()
        return "is a drawing (SVG)" if drawing else "is a web page (HTML), not a picture"
    if not raw.strip(b"\0"):
        return "holds nothing but zeros: its copy failed"
    return f"is no image: it begins with {_first(raw)}"


def _first(raw: bytes) -> str:
    if TEXT.fullmatch(raw[:16]):
        return f"the text {raw[:16].decode('utf-8', 'replace')!r}"
    return f"the bytes {raw[:8].hex(' ')}"
