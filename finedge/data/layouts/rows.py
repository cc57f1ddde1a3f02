"""Parses hand-written lists of images: train.txt, val.csv and similar files.

A line is `path,label`. A tab or a semicolon may replace the comma, and quotes protect text that
holds one. A first line may name the columns. Caffe's form is `path number`, with a blank between.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finedge.data.layouts.lines import ListLine, read_lines
from finedge.data.names import split_of
from finedge.data.record import join_names
from finedge.errors import DataError
from finedge.image import SUFFIXES
from finedge.regular_files import is_regular
from finedge.sanitize import printable

FORM = 'lines `path,label`, quotes around what holds a comma: birds/1.jpg,"finch, red"'
PATHS = frozenset(
    {
        "path",
        "file",
        "filename",
        "filepath",
        "image",
        "img",
        "imagepath",
        "imagefile",
        "imagename",
        "imagefilename",
        "imageid",
        "id",
        "name",
    }
)
LABELS = frozenset(
    {
        "label",
        "labels",
        "class",
        "classname",
        "category",
        "species",
        "target",
        "labelname",
        "classlabel",
    }
)
SETS = frozenset({"split", "splits", "set", "subset", "partition", "usage", "dataset"})
NUMBER = re.compile("[0-9]+")
PICTURE = re.compile("|".join(map(re.escape, sorted(SUFFIXES))), re.IGNORECASE)
LOOK_BYTES = 1 << 20  # read from the start of a file to tell whether it is a list


@dataclass(frozen=True)
class TableRow:
    """One line of a list: its number from 1, the path and the label as they are written."""

    line: int
    path: str
    label: str


@dataclass(frozen=True)
class _ParsedList:
    """A list parsed with one separator: its rows, or the first line that does not fit."""

    rows: tuple[TableRow, ...]
    bad: tuple[int, str] | None = None


@dataclass(frozen=True)
class _Columns:
    """The columns of path, label and split (None: none), and their number."""

    path: int
    label: int
    count: int
    split: int | None = None
    file_split: str | None = None  # the split that the file is for


def read_list(path: Path, *, numbered: bool = False) -> tuple[TableRow, ...]:
    """Return the rows of a list.

    With `numbered` (there is a classes.csv) lines `path, number, number` are accepted too.

    Raises:
        DataError: a line is not a row; the text has its number and the expected form.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(
            f"{printable(path)} is empty",
            expected=FORM,
            fix="write one line for each image, or delete the file",
        )
    file_split = split_of(path.stem)
    attempts = [
        _read(lines, split, numbered=numbered, file_split=file_split) for split in _SEPARATORS
    ]
    complete = [a for a in attempts if a.bad is None and a.rows]
    if complete:
        return max(complete, key=lambda a: _count_existing(a.rows, path.parent)).rows
    bad = [a.bad for a in attempts if a.bad is not None]
    number, why = max(bad, key=lambda b: b[0])  # of the separator that fits most lines
    raise DataError(
        f"{printable(path)}, line {number}: {why}",
        expected=FORM,
        fix="correct this line",
    )


def names_pictures(path: Path) -> bool:
    """Tell whether a text file names any picture; otherwise it is not a list."""
    try:
        with path.open("rb") as file:
            return (
                PICTURE.search(file.read(LOOK_BYTES).replace(b"\0", b"").decode("latin-1"))
                is not None
            )
    except OSError:
        return True  # unknown: reading it reports why


def _read(
    lines: Sequence[ListLine],
    split: Callable[[str], list[str]],
    *,
    numbered: bool,
    file_split: str | None,
) -> _ParsedList:
    rows: list[TableRow] = []
    columns: _Columns | None = None
    for place, line in enumerate(lines):
        try:
            cells = [cell.strip() for cell in split(line.text.strip(" "))]
        except csv.Error as error:
            return _ParsedList((), (line.number, str(error)))
        if place == 0:
            columns = _header(cells)
            if columns:
                columns = replace(columns, file_split=file_split)
                continue
        why = _row_fault(cells, columns, numbered=numbered)
        if why:
            return _ParsedList((), (line.number, why))
        first, second = (columns.path, columns.label) if columns else (0, 1)
        rows.append(TableRow(line.number, cells[first], cells[second]))
    if rows and not columns and _unknown_header(rows):
        why = f"'{printable(rows[0].path)}' is not a picture: is it a header with unknown names?"
        return _ParsedList((), (rows[0].line, why))
    return _ParsedList(tuple(rows), None if rows else (lines[0].number, "a header without a row"))


def _header(cells: Sequence[str]) -> _Columns | None:
    """Return the positions of the columns, if the cells are their names."""
    words = [re.sub(r"[^a-z]", "", cell.casefold()) for cell in cells]
    path, label, split = (
        next((i for i, word in enumerate(words) if word in names), None)
        for names in (PATHS, LABELS, SETS)
    )
    return None if path is None or label is None else _Columns(path, label, len(cells), split)


def _unknown_header(rows: Sequence[TableRow]) -> bool:
    """Tell whether every line but the first names a picture."""
    first, *others = (_is_picture(row.path) for row in rows)
    return not first and bool(others) and all(others)


def _row_fault(cells: Sequence[str], columns: _Columns | None, *, numbered: bool) -> str:
    if columns:
        if len(cells) != columns.count:
            return f"{len(cells)} column(s), the header has {columns.count}"
        stated = "" if columns.split is None else cells[columns.split]
        if columns.file_split and split_of(stated) not in (None, columns.file_split):
            return f"belongs to split '{printable(stated)}': write one list for each split"
        cells = (cells[columns.path], cells[columns.label])
    elif numbered and len(cells) == 3 and all(NUMBER.fullmatch(c) for c in cells[1:]):
        cells = cells[:2]  # of the Grocery Store data set: the third is a coarser class
    if len(cells) != 2:
        return f"{len(cells)} column(s): {join_names(cells, shown=5)}"
    if not cells[0] or not cells[1]:
        return "no path" if cells[1] else f"no label after '{printable(cells[0])}'"
    if _is_picture(cells[1]) and not _is_picture(cells[0]):
        return f"the label comes before the path '{printable(cells[1])}'"
    return ""


def _is_picture(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in SUFFIXES  # noqa: PTH122 - not always a valid path


def _count_existing(rows: Sequence[TableRow], root: Path) -> int:
    """Return how many of the first 100 rows name a file: it tells `a,b.jpg;c` from `a.jpg,b;c`."""
    return sum(is_regular(resolve_path(row.path, root)) for row in rows[:100])


def resolve_path(text: str, root: Path) -> Path:
    """Return the file that a list below `root` names; backslashes of Windows become slashes."""
    path = root / text
    if "\\" in text and not os.path.lexists(path):
        path = root / text.replace("\\", "/")
    return Path(os.path.normpath(path))


def _separated(by: str) -> Callable[[str], list[str]]:
    def split(line: str) -> list[str]:
        return next(csv.reader([line], delimiter=by, skipinitialspace=True, strict=True))

    return split


def _by_blank(line: str) -> list[str]:
    """Split `path number` at its last blank, and `path word` where the line has only one blank."""
    cells = line.split()
    if len(cells) < 2 or not _is_picture(cells[-2]):
        return [line]
    if len(cells) > 2 and not NUMBER.fullmatch(cells[-1]):
        return [line]
    return [line.strip()[: -len(cells[-1])].strip(), cells[-1]]


_SEPARATORS = (_separated(","), _separated("\t"), _separated(";"), _by_blank)
