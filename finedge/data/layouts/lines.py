"""Reads the lines of a hand-written list: its encoding and its line ends."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import DataError
from finedge.regular_files import read_regular
from finedge.sanitize import printable

MAX_BYTES = 1 << 30  # bytes; ten million rows of a hundred letters
# UTF-32 comes first: its mark begins with the mark of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class ListLine:
    """A line that is not blank, and its number from 1."""

    number: int
    text: str


def read_lines(path: Path) -> list[ListLine]:
    """Return the lines that are not blank, of UTF-8, or of UTF-16 or UTF-32 with a byte order mark.

    Raises:
        DataError: not a regular file, too large, another encoding, or control characters.
    """
    try:
        text = _decoded(read_regular(path, limit=MAX_BYTES), path)
    except OSError as error:
        what = f"cannot read {printable(path)}: {error.strerror}"
        raise DataError(what, expected="a readable list") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    content_lines = [ListLine(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for line in content_lines:
        _refuse_control(line, path)
    return content_lines


def _decoded(content: bytes, path: Path) -> str:
    mark, encoding = next(((m, e) for m, e in MARKS if content.startswith(m)), (b"", "utf-8"))
    body = content[len(mark) :]
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        number = body[: error.start].decode(encoding, "ignore").count("\n") + 1
        what = f"byte 0x{body[error.start]:02x} is not {encoding.upper()}"
        raise DataError(
            f"{printable(path)}, line {number}: {what}",
            expected="text in UTF-8, or in UTF-16 with a byte order mark",
            fix=f"save it as UTF-8 (iconv -f latin1 -t utf-8 {printable(path.name)})",
        ) from None


def _refuse_control(line: ListLine, path: Path) -> None:
    control = next((c for c in line.text if c < " " and c != "\t"), None)
    if control is not None:
        raise DataError(
            f"{printable(path)}, line {line.number}: control character 0x{ord(control):02x}",
            expected="plain text",
            fix="save it as UTF-8 text" if control == "\0" else "delete that character",
        )
