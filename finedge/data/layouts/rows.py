"""Hand-written lists of images: one parser for train.txt, val.csv and their like.

A line is `path,label`; a tab or a semicolon may stand for the comma, quotes guard what holds one,
and a first line may name the columns. `path number` with a blank between is Caffe's form.
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
LOOK = 1 << 20  # bytes at the beginning of a file that tell whether it is a list


@dataclass(frozen=True)
class TableRow:
    """One line of a list: its number from 1, the path and the label as they are written."""

    line: int
    path: str
    label: str


@dataclass(frozen=True)
class _Reading:
    """A list read with one separator: rows, or the first line that does not fit."""

    rows: tuple[TableRow, ...]
    bad: tuple[int, str] | None = None


@dataclass(frozen=True)
class _Columns:
    """Where path and label stand, how many columns there are, and where one names the split."""

    path: int
    label: int
    count: int
    split: int | None = None
    own: str | None = None  # the split that the file is for


def read_list(path: Path, *, numbered: bool = False) -> tuple[TableRow, ...]:
    """Return the rows of a list.

    With `numbered` (there is a classes.csv) lines `path, number, number` are taken too.

    Raises:
        DataError: a line that is no row, with its number and the form.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(
            f"{printable(path)} is empty",
            expected=FORM,
            fix="write one line for each image, or delete the file",
        )
    own = split_of(path.stem)
    readings = [_read(lines, split, numbered=numbered, own=own) for split in _SEPARATORS]
    whole = [r for r in readings if r.bad is None and r.rows]
    if whole:
        return max(whole, key=lambda r: _there(r.rows, path.parent)).rows
    bad = [r.bad for r in readings if r.bad is not None]
    number, why = max(bad, key=lambda b: b[0])  # of the separator that fits longest
    raise DataError(
        f"{printable(path)}, line {number}: {why}",
        expected=FORM,
        fix="correct this line",
    )


def names_pictures(path: Path) -> bool:
    """Tell whether a text file names any picture: one that names none is no list."""
    try:
        with path.open("rb") as file:
            return PICTURE.search(file.read(LOOK).replace(b"\0", b"").decode("latin-1")) is not None
    except OSError:
        return True  # unknown: reading it reports why


def _read(
    lines: Sequence[ListLine],
    split: Callable[[str], list[str]],
    *,
    numbered: bool,
    own: str | None,
) -> _Reading:
    rows: list[TableRow] = []
    columns: _Columns | None = None
    for place, line in enumerate(lines):
        try:
            cells = [cell.strip() for cell in split(line.text.strip(" "))]
        except csv.Error as error:
            return _Reading((), (line.number, str(error)))
        if place == 0:
            columns = _header(cells)
            if columns:
                columns = replace(columns, own=own)
                continue
        why = _why_not(cells, columns, numbered=numbered)
        if why:
            return _Reading((), (line.number, why))
        first, second = (columns.path, columns.label) if columns else (0, 1)
        rows.append(TableRow(line.number, cells[first], cells[second]))
    if rows and not columns and _nameless_header(rows):
        why = f"'{printable(rows[0].path)}' is no picture: a header whose names are not known?"
        return _Reading((), (rows[0].line, why))
    return _Reading(tuple(rows), None if rows else (lines[0].number, "a header without a row"))


def _header(cells: Sequence[str]) -> _Columns | None:
    """Return the places of the columns, if cells are their names."""
    words = [re.sub(r"[^a-z]", "", cell.casefold()) for cell in cells]
    path, label, split = (
        next((i for i, word in enumerate(words) if word in names), None)
        for names in (PATHS, LABELS, SETS)
    )
    return None if path is None or label is None else _Columns(path, label, len(cells), split)


def _nameless_header(rows: Sequence[TableRow]) -> bool:
    """Tell whether the first line names no picture, and every other does."""
    first, *others = (_is_picture(row.path) for row in rows)
    return not first and bool(others) and all(others)


def _why_not(cells: Sequence[str], columns: _Columns | None, *, numbered: bool) -> str:
    if columns:
        if len(cells) != columns.count:
            return f"{len(cells)} column(s), the header has {columns.count}"
        stated = "" if columns.split is None else cells[columns.split]
        if columns.own and split_of(stated) not in (None, columns.own):
            return f"is of split '{printable(stated)}': write a list for each split"
        cells = (cells[columns.path], cells[columns.label])
    elif numbered and len(cells) == 3 and all(NUMBER.fullmatch(c) for c in cells[1:]):
        cells = cells[:2]  # as the Grocery Store data set writes them: the third is a coarser class
    if len(cells) != 2:
        return f"{len(cells)} column(s): {join_names(cells, shown=5)}"
    if not cells[0] or not cells[1]:
        return "no path" if cells[1] else f"no label after '{printable(cells[0])}'"
    if _is_picture(cells[1]) and not _is_picture(cells[0]):
        return f"the label stands before the path '{printable(cells[1])}'"
    return ""


def _is_picture(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in SUFFIXES  # noqa: PTH122 - a cell may hold what no path can


def _there(rows: Sequence[TableRow], root: Path) -> int:
    """Return how many of the first rows name a file: what tells `a,b.jpg;c` from `a.jpg,b;c`."""
    return sum(is_regular(resolve_path(row.path, root)) for row in rows[:100])


def resolve_path(text: str, root: Path) -> Path:
    """Return the file that a list below `root` means; backslashes of Windows are slashes."""
    path = root / text
    if "\\" in text and not os.path.lexists(path):
        path = root / text.replace("\\", "/")
    return Path(os.path.normpath(path))


def _separated(by: str) -> Callable[[str], list[str]]:
    def split(line: str) -> list[str]:
        return next(csv.reader([line], delimiter=by, skipinitialspace=True, strict=True))

    return split


def _by_blank(line: str) -> list[str]:
    """Split `path number` at its last blank, and `path word` where the line has but one."""
    cells = line.split()
    if len(cells) < 2 or not _is_picture(cells[-2]):
        return [line]
    if len(cells) > 2 and not NUMBER.fullmatch(cells[-1]):
        return [line]
    return [line.strip()[: -len(cells[-1])].strip(), cells[-1]]


_SEPARATORS = (_separated(","), _separated("\t"), _separated(";"), _by_blank)
