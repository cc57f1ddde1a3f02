"""From a published data set to a folder that `open_dataset` reads: archives, index, counts, lists."""

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
from finedge.train.data.base import Found, Official, Options

log = logging.getLogger(__name__)

RECORD = "dataset.json"  # marks a folder as ours
LISTS = ("train.csv", "val.csv", "test.csv", "classes.csv")


def build(
    name: str,
    official: Official,
    *,
    root: Path,
    options: Options,
    mirror: str = "",
    merge_val: bool = False,
) -> dict[str, Any]:
    """Bring the data set into `root` and return what dataset.json says; other options later rewrite the lists only.

    Raises:
        DataError: the folder is another's, an archive is missing or damaged, or the counts are not the official ones.
        SystemProblem: an address cannot be reached.
    """
    writable_folder(root, option="OUT")
    old = _record(root, name)
    _ask_for_missing(official, root=root, mirror=mirror)
    verified = {a.file for a in official.archives if obtain(a, root=root, mirror=mirror)} | set(
        old.verified
    )
    found = _index(official, root, options)
    if merge_val:
        found = _merged(found)
    record = {
        "schema": 1,
        "name": name,
        **{key: getattr(official, key) for key in ("title", "homepage", "terms")},
        "options": {**options, "merge_val": merge_val},
        "counts": found.counts(),
        "archives": [{"file": a.file, "url": a.url, "digest": a.digest} for a in official.archives],
        "verified": sorted(verified),
    }
    _write(found, root=root, record=record)
    return record


def parse_options(official: Official, pairs: Iterable[str]) -> dict[str, str]:
    """Return every option of the data set with its default, or as `key=value` pairs set it."""
    options = {key: values[0] for key, values in official.options.items()}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in options:
            known = nearest(key, options) if options else f"no options: {official.title} has none"
            raise UsageError(
                f"unknown option '{pair}' of {official.title}",
                expected=known,
                fix="--option key=value",
            )
        if value not in official.options[key]:
            raise UsageError(
                f"{key} is '{value}'", expected=f"one of {', '.join(official.options[key])}"
            )
        options[key] = value
    return options


@dataclass(frozen=True)
class _Old:
    """The fields of an older dataset.json that still count."""

    name: Text
    verified: tuple[Text, ...] = ()


def _record(root: Path, name: str) -> _Old:
    """Return the old dataset.json, or an empty one; refuse a folder with lists of others."""
    try:
        old = decode(_Old, read_json(root / RECORD, error=DataError, fix="delete it and run again"))
    except FileNotFoundError:
        foreign = [list_ for list_ in LISTS if os.path.lexists(root / list_)]
        if foreign:
            what = f"{root} has lists that this command did not write: {', '.join(foreign)}"
            raise DataError(
                what,
                expected="a new folder, or one of this data set",
                fix="name another folder",
            ) from None
        return _Old(name)
    except Misfit as error:
        raise DataError(
            f"{root / RECORD}: {error}",
            expected="the record of this command",
            fix="delete it and run again",
        ) from error
    if old.name != name:
        raise DataError(
            f"{root} holds the data set '{old.name}'",
            expected=name,
            fix="name another folder",
        )
    return old


def _ask_for_missing(official: Official, *, root: Path, mirror: str) -> None:
    """Name every archive that is not there and has no address, before anything is fetched."""
    missing = [
        a.file
        for a in official.archives
        if not (a.url or mirror or is_there(a, root=root) or (root / a.file).is_file())
    ]
    if missing:
        fix = f"get them ({official.homepage}), put them into {root} and run again; or name an address that serves them with --mirror URL"
        raise DataError(
            f"{official.title} has no address to download from; missing: {', '.join(missing)}",
            expected="these files in the folder",
            fix=fix,
        )


def _index(official: Official, root: Path, options: Options) -> Found:
    try:
        found = official.index(root, options)
    except (
        OSError,
        KeyError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        what = f"the lists of {official.title} in {root} cannot be read: {type(error).__name__}: {error}"
        raise DataError(
            what, expected="the official files", fix="delete what was unpacked and run again"
        ) from error
    counts, expected = found.counts(), official.expected(options)
    wrong = {key: count for key, count in expected.items() if counts.get(key) != count}
    if wrong:
        has = ", ".join(f"{counts.get(key, 0)} {key}" for key in wrong)
        raise DataError(
            f"{official.title} in {root} has {has}",
            expected=", ".join(f"{n} {key}" for key, n in wrong.items()),
            fix="get the official archives",
        )
    absent = [
        path for rows in found.splits.values() for path, _ in rows if not (root / path).is_file()
    ]
    if absent:
        what = f"{len(absent)} listed images are not in {root}: {', '.join(absent[:3])}"
        raise DataError(what, expected="every listed image", fix="unpack the archives again")
    return found


def _merged(found: Found) -> Found:
    if not found.splits.get("val"):
        raise UsageError(
            "--merge-val without a val split",
            expected="a data set with an official val split: aircraft, flowers102, grocery",
        )
    splits = {"train": (*found.splits["train"], *found.splits["val"]), "test": found.splits["test"]}
    return Found(found.labels, splits, found.listed)


def _write(found: Found, *, root: Path, record: dict[str, Any]) -> None:
    """Write the lists; train.csv, without which the folder is no data set, goes first and comes back last."""
    (root / "train.csv").unlink(missing_ok=True)
    write_text(root / RECORD, json.dumps(record, indent=1))
    write_text(
        root / "classes.csv",
        _csv([("name", "id"), *((label, i) for i, label in enumerate(found.labels))]),
    )
    for split in ("val", "test", "train"):
        if found.splits.get(split):
            write_text(root / f"{split}.csv", _csv(found.splits[split]))
        else:
            (root / f"{split}.csv").unlink(missing_ok=True)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
