"""Turns a published data set into a folder that `open_dataset` reads."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.document import read_json
from finedge.errors import DataError, UsageError, nearest
from finedge.files import writable_folder, write_text
from finedge.schema import Misfit, Text, decode
from finedge.train.data.archive import is_there, obtain
from finedge.train.data.base import OfficialDataset, Options, SplitLists

log = logging.getLogger(__name__)

RECORD = "dataset.json"  # marks a folder that this module made
LISTS = ("train.csv", "val.csv", "test.csv", "classes.csv")


def build_dataset(
    name: str,
    official: OfficialDataset,
    *,
    root: Path,
    options: Options,
    mirror: str = "",
    merge_val: bool = False,
) -> dict[str, Any]:
    """Bring the data set into `root` and return the content of dataset.json.

    A later call with other options rewrites the lists only.

    Raises:
        DataError: the folder belongs to another data set, an archive is missing or damaged, or the
            counts are not the official ones.
        SystemProblem: an address cannot be reached.
    """
    writable_folder(root, option="OUT")
    previous = _record(root, name)
    _ask_for_missing(official, root=root, mirror=mirror)
    verified = set(previous.verified)
    verified |= {a.file for a in official.archives if obtain(a, root=root, mirror=mirror)}
    lists = _index(official, root, options)
    if merge_val:
        lists = _merged(lists)
    record = {
        "schema": 1,
        "name": name,
        **{key: getattr(official, key) for key in ("title", "homepage", "terms")},
        "options": {**options, "merge_val": merge_val},
        "counts": lists.counts(),
        "archives": [{"file": a.file, "url": a.url, "digest": a.digest} for a in official.archives],
        "verified": sorted(verified),
    }
    _write(lists, root=root, record=record)
    return record


def parse_options(official: OfficialDataset, pairs: Iterable[str]) -> dict[str, str]:
    """Return every option of the data set with its default, or as `key=value` pairs set it."""
    options = {key: values[0] for key, values in official.options.items()}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in options:
            expected = nearest(key, options) if options else f"no option of {official.title}"
            raise UsageError(
                f"unknown option '{pair}' of {official.title}",
                expected=expected,
                fix="--option key=value",
            )
        if value not in official.options[key]:
            raise UsageError(
                f"{key} is '{value}'", expected=f"one of {', '.join(official.options[key])}"
            )
        options[key] = value
    return options


@dataclass(frozen=True)
class _PreviousRecord:
    """The fields of an existing dataset.json that are still valid."""

    name: Text
    verified: tuple[Text, ...] = ()


def _record(root: Path, name: str) -> _PreviousRecord:
    """Return the existing dataset.json, or an empty one; refuse a folder with other lists."""
    try:
        content = read_json(root / RECORD, error=DataError, fix="delete it and run again")
        previous = decode(_PreviousRecord, content)
    except FileNotFoundError:
        foreign = [name for name in LISTS if os.path.lexists(root / name)]
        if foreign:
            raise DataError(
                f"{root} has lists that this command did not write: {', '.join(foreign)}",
                expected="a new folder, or one of this data set",
                fix="name another folder",
            ) from None
        return _PreviousRecord(name)
    except Misfit as error:
        raise DataError(
            f"{root / RECORD}: {error}",
            expected="the record of this command",
            fix="delete it and run again",
        ) from error
    if previous.name != name:
        raise DataError(
            f"{root} holds the data set '{previous.name}'",
            expected=name,
            fix="name another folder",
        )
    return previous


def _ask_for_missing(official: OfficialDataset, *, root: Path, mirror: str) -> None:
    """Report every archive that is missing and has no address, before anything is downloaded."""
    missing = [
        a.file
        for a in official.archives
        if not (a.url or mirror or is_there(a, root=root) or (root / a.file).is_file())
    ]
    if missing:
        raise DataError(
            f"{official.title} has no address to download from; missing: {', '.join(missing)}",
            expected="these files in the folder",
            fix=f"get them ({official.homepage}), put them into {root} and run again; or name an "
            "address that serves them with --mirror URL",
        )


def _index(official: OfficialDataset, root: Path, options: Options) -> SplitLists:
    try:
        lists = official.index(root, options)
    except (
        OSError,
        KeyError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DataError(
            f"the lists of {official.title} in {root} cannot be read: {type(error).__name__}: "
            f"{error}",
            expected="the official files",
            fix="delete the unpacked files and run again",
        ) from error
    _require_counts(lists, official, root=root, options=options)
    _require_images(lists, root)
    return lists


def _require_counts(
    lists: SplitLists, official: OfficialDataset, *, root: Path, options: Options
) -> None:
    counts, expected = lists.counts(), official.expected(options)
    wrong = {key: count for key, count in expected.items() if counts.get(key) != count}
    if wrong:
        has = ", ".join(f"{counts.get(key, 0)} {key}" for key in wrong)
        raise DataError(
            f"{official.title} in {root} has {has}",
            expected=", ".join(f"{n} {key}" for key, n in wrong.items()),
            fix="get the official archives",
        )


def _require_images(lists: SplitLists, root: Path) -> None:
    paths = (path for rows in lists.splits.values() for path, _ in rows)
    absent = [path for path in paths if not (root / path).is_file()]
    if absent:
        raise DataError(
            f"{len(absent)} listed images are not in {root}: {', '.join(absent[:3])}",
            expected="every listed image",
            fix="unpack the archives again",
        )


def _merged(lists: SplitLists) -> SplitLists:
    if not lists.splits.get("val"):
        raise UsageError(
            "--merge-val without a val split",
            expected="a data set with an official val split: aircraft, flowers102, grocery",
        )
    train = (*lists.splits["train"], *lists.splits["val"])
    return SplitLists(lists.labels, {"train": train, "test": lists.splits["test"]}, lists.listed)


def _write(lists: SplitLists, *, root: Path, record: dict[str, Any]) -> None:
    """Write the lists.

    train.csv is removed first and written last: without it the folder is not a data set.
    """
    (root / "train.csv").unlink(missing_ok=True)
    write_text(root / RECORD, json.dumps(record, indent=1))
    classes = ((label, number) for number, label in enumerate(lists.labels))
    write_text(root / "classes.csv", _csv([("name", "id"), *classes]))
    for split in ("val", "test", "train"):
        if lists.splits.get(split):
            write_text(root / f"{split}.csv", _csv(lists.splits[split]))
        else:
            (root / f"{split}.csv").unlink(missing_ok=True)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
