"""Reads lists of images: train.csv (.txt, .tsv), optional val, test and classes.csv.

The Grocery Store data set has this layout.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.data.layouts.lines import read_lines
from finedge.data.layouts.rows import (
    FORM,
    NUMBER,
    TableRow,
    names_pictures,
    read_list,
    resolve_path,
)
from finedge.data.names import label_text, reason_to_ignore, refuse_alike, split_of
from finedge.data.record import SPLITS, Contents, Item, LeftOut, join_names
from finedge.errors import DataError
from finedge.regular_files import is_regular
from finedge.sanitize import printable

SUFFIXES = (".csv", ".tsv", ".txt")
CLASSES = "classes.csv"
CLASSES_FORM = "a header, then lines `name,number` with the numbers 0, 1, 2, ..."
STRAY = "a text file that names no picture"
REPEATED = "a line of a list that appears twice"
DIGITS = 9


@dataclass(frozen=True)
class _Place:
    """The first line that lists an image, and its label there."""

    file: Path
    row: TableRow
    label: str


def read_listed(root: Path) -> Contents | None:
    """train.txt [val.txt test.txt] with lines `path, label`, or train.csv ... (own lists)."""
    files, stray = _list_files(root)
    if "train" not in files:
        return None
    names = _class_names(root / CLASSES)
    rows = {s: read_list(files[s], numbered=bool(names)) for s in SPLITS if s in files}
    labels, index = _labels(rows, names, files=files)
    if len(labels) < 2:
        first = rows["train"][0]
        place = f"{printable(files['train'])}, line {first.line}"
        what = f"{place}: every label is '{printable(first.label)}'"
        raise DataError(what, expected=f"at least 2 classes in {FORM}")
    refuse_alike(labels, where=root)
    seen: dict[Path, _Place] = {}
    repeated: list[str] = []
    splits = {
        s: tuple(_items(rows[s], files[s], index=index, seen=seen, repeated=repeated)) for s in rows
    }
    _refuse_all_missing(root, splits)
    left_out = (
        *stray,
        *([LeftOut(REPEATED, len(repeated), tuple(repeated[:10]))] if repeated else ()),
    )
    return Contents(root, labels, splits, left_out)


def stray_lists(root: Path) -> list[str]:
    """Return why each file with the name of a list is not read, beside folders of classes."""
    files, stray = _list_files(root)
    remarks = [
        f"{name} names no picture: it is not a list" for left in stray for name in left.examples
    ]
    names = [printable(file.name) for file in files.values()]
    return remarks + [f"{name} is not read: there is no list for train" for name in names]


def _list_files(root: Path) -> tuple[dict[str, Path], tuple[LeftOut, ...]]:
    """Return the list of each split, and the text files that only have such a name.

    An empty or unreadable .csv is a broken list. A .txt that names no picture may be someone's
    notes. Beside folders of pictures it is not read as a list.
    """
    by_split: dict[str, Path] = {}
    stray = []
    for path in sorted(root.iterdir()):
        suffix, split = path.suffix.lower(), split_of(path.stem)
        if split is None or suffix not in SUFFIXES or reason_to_ignore(path.name) or path.is_dir():
            continue
        notes = suffix == ".txt" and path.is_file() and not names_pictures(path)
        if notes and _has_folders(root):
            stray.append(printable(path.name))
        elif split in by_split:
            both = join_names((by_split[split].name, path.name))
            raise DataError(
                f"{root} has two lists for split '{split}': {both}",
                expected="one",
                fix="delete or rename one",
            )
        else:
            by_split[split] = path
    return by_split, (LeftOut(STRAY, len(stray), tuple(stray[:10])),) if stray else ()


def _has_folders(root: Path) -> bool:
    return any(p.is_dir() and not reason_to_ignore(p.name) for p in root.iterdir())


def _labels(
    rows: Mapping[str, tuple[TableRow, ...]],
    names: tuple[str, ...],
    *,
    files: Mapping[str, Path],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the labels, and the class that each written label means.

    Labels are text. They are numbers where classes.csv numbers them, or they are exactly 0..n-1.
    """
    written = sorted({row.label for split_rows in rows.values() for row in split_rows})
    if names:
        index = {text: _numbered(text, names) for text in written}
        _refuse_unknown(rows, index, files=files, count=len(names))
        return names, {text: number for text, number in index.items() if number is not None}
    if set(written) == {str(i) for i in range(len(written))}:
        return tuple(str(i) for i in range(len(written))), {text: int(text) for text in written}
    labels = tuple(sorted({label_text(text) for text in written}))
    places = {label: i for i, label in enumerate(labels)}
    return labels, {text: places[label_text(text)] for text in written}


def _numbered(text: str, names: tuple[str, ...]) -> int | None:
    if NUMBER.fullmatch(text) and len(text) <= DIGITS and int(text) < len(names):
        return int(text)
    return names.index(label_text(text)) if label_text(text) in names else None


def _refuse_unknown(
    rows: Mapping[str, tuple[TableRow, ...]],
    index: Mapping[str, int | None],
    *,
    files: Mapping[str, Path],
    count: int,
) -> None:
    for split, split_rows in rows.items():
        for row in split_rows:
            if index[row.label] is None:
                label = printable(row.label[:60])
                raise DataError(
                    f"{printable(files[split])}, line {row.line}: label '{label}'",
                    expected=f"labels 0..{count - 1} as in {CLASSES}, or its names",
                )


def _items(
    rows: Iterable[TableRow],
    file: Path,
    *,
    index: Mapping[str, int],
    seen: dict[Path, _Place],
    repeated: list[str],
) -> Iterator[Item]:
    """Yield the images of a list; a line that appears twice is used once."""
    listed: set[Path] = set()
    for row in rows:
        path = resolve_path(row.path, file.parent)
        _refuse_special(path, row, file=file)
        first = seen.setdefault(path, _Place(file, row, row.label))
        if index[first.label] != index[row.label]:
            first_place = f"{printable(first.file.name)}, line {first.row.line}"
            place = f"{printable(file)}, line {row.line}: '{printable(row.path)}'"
            label, first_label = printable(row.label), printable(first.label)
            raise DataError(
                f"{place} is '{label}', and '{first_label}' in {first_place}",
                expected="one label for each image",
            )
        if path in listed:
            repeated.append(f"{printable(file.name)}:{row.line}")
            continue
        listed.add(path)
        yield Item(path, index[row.label])


def _refuse_special(path: Path, row: TableRow, *, file: Path) -> None:
    """Refuse a pipe, a folder or a device: reading one could wait without end."""
    if os.path.exists(path) and not is_regular(path):  # noqa: PTH110 - Path's own raises
        what = f"{printable(file)}, line {row.line}: '{printable(row.path)}' is not a regular file"
        raise DataError(what, expected=FORM, fix="list image files only")


def _refuse_all_missing(root: Path, splits: Mapping[str, tuple[Item, ...]]) -> None:
    items = [item for split_items in splits.values() for item in split_items]
    if not any(is_regular(item.path) for item in items):
        what = f"none of the {len(items)} images in the lists of {root} exists"
        raise DataError(
            f"{what}, first: {printable(items[0].path)}",
            expected=f"paths below {root}, or absolute ones",
            fix="correct the paths, or copy the images",
        )


def _class_names(path: Path) -> tuple[str, ...]:
    """Read classes.csv with header `name, id, ...` (Grocery Store); () where there is none."""
    if not path.is_file():
        return ()
    numbered: dict[int, str] = {}
    for place, line in enumerate(read_lines(path)):
        try:
            row = next(csv.reader([line.text], skipinitialspace=True, strict=True))
        except csv.Error as error:
            what = f"{printable(path)}, line {line.number}: {error}"
            raise DataError(what, expected=CLASSES_FORM) from error
        cells = [cell.strip() for cell in row]
        number = NUMBER.fullmatch(cells[1]) if len(cells) >= 2 else None
        fits = number and cells[0] and len(cells[1]) <= DIGITS
        if not fits and place == 0:
            continue
        if not fits or int(cells[1]) in numbered:
            why = "this number appears twice" if fits else "not `name,number`"
            raise DataError(f"{printable(path)}, line {line.number}: {why}", expected=CLASSES_FORM)
        numbered[int(cells[1])] = label_text(cells[0])
    names = tuple(numbered[k] for k in sorted(numbered))
    if sorted(numbered) != list(range(len(numbered))) or len(set(names)) < len(names) or not names:
        why = "has gaps in its numbers, or a name appears twice" if names else "names no class"
        raise DataError(f"{printable(path)} {why}", expected=CLASSES_FORM)
    return names
