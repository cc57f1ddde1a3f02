"""Cleans text from servers, labels and files for terminals, logs, datagrams and file names."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata

from finedge.redact import mask_text

# Control characters (C0, C1), marks that change the reading direction, invisible line breaks,
# invisible characters, and halves of surrogate pairs.
# Zero-width joiners stay: Persian, Hindi and emoji need them.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
UNPRINTABLE = re.compile(f"[{_UNSEEN}]")
# Characters that some file systems refuse (exFAT, NTFS), that a shell interprets, and the escape
# character of `file_name`.
UNSAFE = re.compile(f'[{_UNSEEN}<>:"/\\\\|?*%]')
RESERVED = re.compile(
    r"(?i)(?:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\..*)?",
    re.DOTALL,
)
# Data readers skip names that begin like this: they belong to other programs.
TOOLS = re.compile(r"(?i)[.@$~#]|__MACOSX$")
# Bytes of UTF-8. With a time and a suffix added, a name stays below the limit of 255.
MAX_NAME_BYTES = 180
MARK = re.compile(r"~[0-9a-f]{16}$")


def printable(text: object) -> str:
    """Return a text or path as one line in which every character is visible.

    Invisible characters are written as Python escapes them, and so are bytes that are not Unicode.
    """
    return UNPRINTABLE.sub(lambda match: _escape(match[0]), str(text))


def printable_lines(text: str) -> str:
    """Return `text` with every line but the first indented, so that none looks like finedge's."""
    first, *rest = (printable(line) for line in text.split("\n"))
    return "\n".join(
        [first, *(line if line.startswith("  ") or not line else f"  {line}" for line in rest)]
    )


def clean(text: str) -> str:
    """Return `text` without secrets and control characters."""
    return printable_lines(mask_text(text))


def file_name(label: str) -> str:
    """Return a label as a file name that every file system accepts; no two labels share a name.

    Unsafe characters become %XX of their UTF-8 bytes. A long name is cut and ends in ~ and 16
    digits of the label's sha256. On file systems that ignore case, labels that differ only in case
    do share a name.
    """
    data = label.encode("utf-8", "surrogatepass")
    name = UNSAFE.sub(lambda match: _percent(match[0]), label)
    if TOOLS.match(name) or RESERVED.fullmatch(name) or name.startswith(" "):
        name = _percent(name[0]) + name[1:]
    if name.endswith((".", " ")):
        name = name[:-1] + _percent(name[-1])
    mark = MARK.search(name)
    if mark:
        name = name[: mark.start()] + _percent("~") + name[mark.start() + 1 :]
    # A file system may compose letters and accents (HFS+), but two spellings of a text are two
    # labels.
    if len(name.encode()) > MAX_NAME_BYTES or unicodedata.normalize("NFC", name) != name:
        head = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").rstrip(". ")
        name = f"{head}~{hashlib.sha256(data).hexdigest()[:16]}"
    return name or "%"


def is_utf8(path: os.PathLike[str]) -> bool:
    """Tell whether the name of a file is UTF-8: Python keeps other bytes as halves of pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in os.fspath(path))


class CleanFormatter(logging.Formatter):
    """Formats a log record and cleans it, with the text of its exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return clean(super().format(record))


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a file name
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
