"""Reads the four tables of CUB-200-2011."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finedge.data.layouts.lines import ListLine, read_lines
from finedge.data.layouts.rows import NUMBER
from finedge.data.names import label_text
from finedge.data.record import Contents, Item, join_names
from finedge.errors import DataError
from finedge.sanitize import printable

IMAGES, CLASSES, FLAGS, NAMES = (
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "classes.txt",
)
REISSUE = (2999, 2903)  # train and test images of the 100-class re-issue
DIGITS = 18  # of the largest number


def read_cub(root: Path) -> Contents | None:
    """images.txt, image_class_labels.txt, train_test_split.txt (CUB-200-2011)."""
    if not all((root / t).is_file() for t in (IMAGES, CLASSES, FLAGS, NAMES)):
        return None
    files, names = _table(root / IMAGES), _table(root / NAMES)
    classes, flags = _numbers(root / CLASSES), _numbers(root / FLAGS)
    _refuse_gaps(root, files, classes=classes, flags=flags)
    # The 100-class re-issue counts from 0 and writes 0 for train. The official file counts from 1
    # and writes 1 for train.
    first = min(names)
    labels = tuple(label_text(names[k]) for k in sorted(names))
    if sorted(names) != list(range(first, first + len(names))) or first not in (0, 1):
        what = f"{root / NAMES} numbers its classes with gaps"
        raise DataError(what, expected="0, 1, 2, ... or 1, 2, 3, ...")
    groups: dict[str, list[Item]] = {"train": [], "test": []}
    for key, file in files.items():
        if classes[key] not in names:
            raise DataError(
                f"{root / CLASSES}: image {key} has class {classes[key]}",
                expected=f"a class of {NAMES}",
            )
        split = "train" if flags[key] == (0 if first == 0 else 1) else "test"
        groups[split].append(Item(root / "images" / file, classes[key] - first))
    sizes = (len(groups["train"]), len(groups["test"]))
    if first == 0 and sizes != REISSUE:
        what = f"{root} has {sizes[0]} train and {sizes[1]} test images"
        raise DataError(what, expected=f"{REISSUE[0]} and {REISSUE[1]} (CUB-100 re-issue)")
    return Contents(root, labels, {s: tuple(v) for s, v in groups.items()})


def _refuse_gaps(
    root: Path,
    files: dict[int, str],
    *,
    classes: dict[int, int],
    flags: dict[int, int],
) -> None:
    for name, table in ((CLASSES, classes), (FLAGS, flags)):
        missing = sorted(set(files) - set(table))
        if missing:
            raise DataError(
                f"{root / name} lacks {len(missing)} image(s): {join_names(missing)}",
                expected=f"every image of {IMAGES}",
            )
    wrong = sorted(key for key in files if flags[key] not in (0, 1))
    if wrong:
        what = f"{root / FLAGS} has flags other than 0 and 1: images {join_names(wrong)}"
        raise DataError(what, expected="0 or 1")


def _table(path: Path) -> dict[int, str]:
    """Read lines `number text` or `number, text`."""
    table: dict[int, str] = {}
    for line in _refuse_empty(read_lines(path), path):
        cells = line.text.replace(",", " ", 1).split(maxsplit=1)
        if len(cells) != 2 or not NUMBER.fullmatch(cells[0]) or len(cells[0]) > DIGITS:
            what = f"{printable(path)}, line {line.number}: '{printable(line.text[:60])}'"
            raise DataError(what, expected="lines `number text`", fix="get the table again")
        if int(cells[0]) in table:
            raise DataError(
                f"{printable(path)}, line {line.number}: {cells[0]} appears twice",
                expected="each number once",
            )
        table[int(cells[0])] = cells[1].strip()
    return table


def _numbers(path: Path) -> dict[int, int]:
    table = _table(path)
    wrong = next((k for k, v in table.items() if not NUMBER.fullmatch(v) or len(v) > DIGITS), None)
    if wrong is not None:
        raise DataError(
            f"{printable(path)}: {wrong} has '{printable(table[wrong][:60])}'",
            expected="lines `number number`",
        )
    return {key: int(value) for key, value in table.items()}


def _refuse_empty(lines: list[ListLine], path: Path) -> Iterable[ListLine]:
    if not lines:
        what = f"{printable(path)} is empty"
        raise DataError(what, expected="lines `number text`", fix="get the table again")
    return lines
