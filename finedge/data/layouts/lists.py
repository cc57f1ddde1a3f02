"""The layout of lists: train.csv (.txt, .tsv), perhaps val, test, classes.csv; Grocery Store."""

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
TWICE = "a line of a list that stands there twice"
DIGITS = 9


@dataclass(frozen=True)
class _Place:
    """Where an image was listed first, and as what."""

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
    twice: list[str] = []
    splits = {
        s: tuple(_items(rows[s], files[s], index=index, seen=seen, twice=twice)) for s in rows
    }
    _refuse_all_missing(root, splits)
    left_out = (*stray, *([LeftOut(TWICE, len(twice), tuple(twice[:10]))] if twice else ()))
    return Contents(root, labels, splits, left_out)


def stray_lists(root: Path) -> list[str]:
    """Say of each file that is called as a list is why it is none, beside folders of classes."""
    files, stray = _list_files(root)
    remarks = [
        f"{name} names no picture: it is no list" for left in stray for name in left.examples
    ]
    names = [printable(file.name) for file in files.values()]
    return remarks + [f"{name} is not read: there is no list for train" for name in names]


def _list_files(root: Path) -> tuple[dict[str, Path], tuple[LeftOut, ...]]:
    """Return the list of each split, and the text files that only bear such a name.

    An empty or unreadable .csv is a broken list. A .txt that names no picture may be anybody's
    notes, and claims nothing beside folders of pictures.
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
    written = sorted({row.label for some in rows.values() for row in some})
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
    for split, some in rows.items():
        for row in some:
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
    twice: list[str],
) -> Iterator[Item]:
    """Yield the images of a list; one line that stands there twice is taken once."""
    here: set[Path] = set()
    for row in rows:
        path = resolve_path(row.path, file.parent)
        _refuse_special(path, row, file=file)
        first = seen.setdefault(path, _Place(file, row, row.label))
        if index[first.label] != index[row.label]:
            there = f"{printable(first.file.name)}, line {first.row.line}"
            place = f"{printable(file)}, line {row.line}: '{printable(row.path)}'"
            raise DataError(
                f"{place} is '{printable(row.label)}', and '{printable(first.label)}' in {there}",
                expected="one label for each image",
            )
        if path in here:
            twice.append(f"{printable(file.name)}:{row.line}")
            continue
        here.add(path)
        yield Item(path, index[row.label])


def _refuse_special(path: Path, row: TableRow, *, file: Path) -> None:
    """Refuse a pipe, a folder or a device: reading one could wait for ever."""
    if os.path.exists(path) and not is_regular(path):  # noqa: PTH110 - Path's own raises
        what = f"{printable(file)}, line {row.line}: '{printable(row.path)}' is not a regular file"
        raise DataError(what, expected=FORM, fix="list image files only")


def _refuse_all_missing(root: Path, splits: Mapping[str, tuple[Item, ...]]) -> None:
    items = [item for some in splits.values() for item in some]
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
        good = number and cells[0] and len(cells[1]) <= DIGITS
        if not good and place == 0:
            continue
        if not good or int(cells[1]) in numbered:
            why = "a number that stands there twice" if good else "is no `name,number`"
            raise DataError(f"{printable(path)}, line {line.number}: {why}", expected=CLASSES_FORM)
        numbered[int(cells[1])] = label_text(cells[0])
    names = tuple(numbered[k] for k in sorted(numbered))
    if sorted(numbered) != list(range(len(numbered))) or len(set(names)) < len(names) or not names:
        why = "has gaps in its numbers, or one name twice" if names else "names no class"
        raise DataError(f"{printable(path)} {why}", expected=CLASSES_FORM)
    return names
