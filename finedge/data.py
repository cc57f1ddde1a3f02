"""Labelled images on disk: which layout a folder has, its labels and splits. No torch: the device evaluates with it too."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finedge.errors import DataError, nearest
from finedge.image import is_image, read_image

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
MAX_UNREADABLE = 0.02  # of all images; past this the data set is taken to be broken
CUT = 0.1  # the share of train that becomes val where val is missing or thin
THIN = 2.0  # fewer val images a class than this, on average, is thin


@dataclass(frozen=True)
class Item:
    """One labelled image."""

    path: Path
    label: int


@dataclass(frozen=True)
class DataSet:
    """Labels and splits of a folder; `layout` names how it was read, `cut` how val or test were made (None: as found)."""

    root: Path
    layout: str
    labels: tuple[str, ...]
    splits: Mapping[str, tuple[Item, ...]]
    cut: Mapping[str, Any] | None = None

    def split(self, name: str) -> tuple[Item, ...]:
        """Return the images of a split; an unknown or empty one raises `DataError`."""
        items = self.splits.get(name, ())
        if not items:
            raise DataError(f"{self.root} has no images in split '{name}'", expected=nearest(name, [s for s in self.splits if self.splits[s]]))
        return items

    def absent(self, name: str) -> tuple[str, ...]:
        """Return the labels without an image in a split."""
        present = {i.label for i in self.splits.get(name, ())}
        return tuple(label for index, label in enumerate(self.labels) if index not in present)

    def describe(self) -> str:
        """Return layout and sizes in one line."""
        sizes = ", ".join(f"{len(self.splits.get(s, ()))} {s}" for s in SPLITS)
        return f"{self.root}: layout '{self.layout}', {len(self.labels)} classes, {sizes}" + (f" (cut: {dict(self.cut)})" if self.cut else "")


def open_dataset(root: Path, *, seed: int = 0) -> DataSet:
    """Detect the layout of `root`, read its splits, and cut what is missing from train.

    A missing or thin val split is cut from train (10 %, by `seed`, class by class); a folder without any split is cut into
    train, val and test. The same folder and seed give the same cut on every machine.

    Raises:
        DataError: no layout fits, fewer than two classes, or a class without a training image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", expected="a folder of images", fix="finedge data render DIR makes one to try with")
    for name, reader in LAYOUTS.items():
        found = reader(root)
        if found is not None:
            data = _with_cuts(DataSet(root, name, *found), seed)
            _check(data)
            log.info("%s", data.describe())
            return data
    raise DataError(f"no known layout of images in {root}", expected="; ".join(f"{n}: {(r.__doc__ or '').splitlines()[0]}" for n, r in LAYOUTS.items()))


def drop_unreadable(data: DataSet, *, splits: Iterable[str] = SPLITS, limit: float = MAX_UNREADABLE) -> DataSet:
    """Decode every image once; leave out and list those that fail, and refuse the data set past a share of `limit`."""
    wanted = [i for s in splits for i in data.splits.get(s, ())]
    with ThreadPoolExecutor() as pool:
        bad = {i.path for i, why in zip(wanted, pool.map(_why_unreadable, wanted), strict=True) if why}
    if not bad:
        return data
    listed = "\n    ".join(str(p) for p in sorted(bad)[:20])
    text = f"{len(bad)} of {len(wanted)} images cannot be read:\n    {listed}" + ("\n    ..." if len(bad) > 20 else "")
    if len(bad) > limit * len(wanted):
        raise DataError(text, expected=f"at most {limit:.0%} unreadable", fix="repair or delete these files")
    log.warning("%s\n  they are left out", text)
    rest = replace(data, splits={s: tuple(i for i in items if i.path not in bad) for s, items in data.splits.items()})
    _check(rest)
    return rest


def content_digest(path: Path) -> str:
    """Return the sha256 of an image file: what overlap between splits is judged by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _why_unreadable(item: Item) -> str:
    try:
        read_image(item.path)
    except DataError as error:
        return str(error)
    return ""


def _check(data: DataSet) -> None:
    if len(data.labels) < 2:
        raise DataError(f"{data.root} has {len(data.labels)} class(es)", expected="at least 2")
    absent = data.absent("train")
    if absent:
        what = f"{len(absent)} class(es) of {data.root} have no training image: {_first(absent)}"
        raise DataError(what, expected="at least one each", fix="add images or remove the class")
    for split in ("val", "test"):
        missing = data.absent(split)
        if data.splits.get(split) and missing:
            log.warning("%d class(es) have no image in split '%s' (n/a there): %s", len(missing), split, _first(missing))


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


# --- cutting ------------------------------------------------------------------------------------------------------------


def _with_cuts(data: DataSet, seed: int) -> DataSet:
    splits, cut = dict(data.splits), {}
    if not splits.get("test") and data.layout == "folder":
        splits["train"], splits["test"] = _cut(splits["train"], 0.2, seed)
        cut["test"] = 0.2
    if len(splits.get("val", ())) < THIN * len(data.labels):
        splits["train"], splits["val"] = _cut((*splits["train"], *splits.get("val", ())), CUT, seed)
        cut["val"] = CUT
    return replace(data, splits=splits, cut={"seed": seed, **cut} if cut else None)


def _cut(items: tuple[Item, ...], share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Split class by class into (rest, part); a class keeps at least one image in the rest."""
    by_label = defaultdict(list)
    for item in sorted(items, key=lambda i: str(i.path)):
        by_label[item.label].append(item)
    rest, part = [], []
    for label, group in sorted(by_label.items()):
        random.Random(f"{seed}-{label}").shuffle(group)
        count = min(len(group) - 1, max(1, round(share * len(group))))
        part += group[:count]
        rest += group[count:]
    return tuple(rest), tuple(part)


# --- layouts: each returns (labels, splits), or None where the folder is something else ------------------------------------

Found = tuple[tuple[str, ...], dict[str, tuple[Item, ...]]]


def _cub(root: Path) -> Found | None:
    """images.txt, image_class_labels.txt, train_test_split.txt (CUB-200-2011)."""
    tables = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    if not all((root / t).is_file() for t in tables):
        return None
    files, classes, flags, names = (_table(root / t) for t in tables)
    # The 100-class re-issue numbers from 0 and writes 0 for train; the official file numbers from 1 and writes 1 for train.
    first = min(int(k) for k in names)
    train_flag = "0" if first == 0 else "1"
    groups: dict[str, list[Item]] = {"train": [], "test": []}
    for key, file in files.items():
        groups["train" if flags[key] == train_flag else "test"].append(Item(root / "images" / file, int(classes[key]) - first))
    if first == 0 and (len(groups["train"]), len(groups["test"])) != (2999, 2903):
        raise DataError(f"{root} has {len(groups['train'])} train and {len(groups['test'])} test images", expected="2999 and 2903 (CUB-100 re-issue)")
    return tuple(names[k] for k in sorted(names, key=int)), {s: tuple(v) for s, v in groups.items()}


def _lists(root: Path) -> Found | None:
    """train.txt [val.txt test.txt] with lines `path, label`, or train.csv ... (Grocery Store; own lists)."""
    found = {s: f for s in SPLITS for f in (root / f"{s}.txt", root / f"{s}.csv") if f.is_file()}
    if "train" not in found:
        return None
    rows = {s: [(root / r[0].strip(), r[1].strip()) for r in csv.reader(f.open(newline="")) if len(r) >= 2] for s, f in found.items()}
    values = sorted({label for items in rows.values() for _, label in items})
    if all(v.isdigit() for v in values):
        index = {v: int(v) for v in values}
        labels = _class_names(root) or tuple(str(i) for i in range(max(index.values()) + 1))
    else:
        index, labels = {v: i for i, v in enumerate(values)}, tuple(values)
    if max(index.values()) >= len(labels):
        raise DataError(f"{root} uses label {max(index.values())}", expected=f"labels 0..{len(labels) - 1} as in classes.csv")
    return labels, {s: tuple(Item(p, index[v]) for p, v in items) for s, items in rows.items()}


def _split_folders(root: Path) -> Found | None:
    """train/CLASS/*.jpg [val/CLASS/... test/CLASS/...] (ImageFolder)."""
    if not (root / "train").is_dir():
        return None
    labels = _subfolders(root / "train", root / "val", root / "test")
    return labels, {s: _class_folders(root / s, labels) for s in SPLITS if (root / s).is_dir()}


def _one_folder(root: Path) -> Found | None:
    """CLASS/*.jpg (one ImageFolder, cut into train, val and test by a seed)."""
    labels = _subfolders(root)
    items = _class_folders(root, labels)
    return (labels, {"train": items}) if items else None


LAYOUTS: dict[str, Callable[[Path], Found | None]] = {"cub": _cub, "lists": _lists, "split-folders": _split_folders, "folder": _one_folder}


def _table(path: Path) -> dict[str, str]:
    """Read lines `key value` or `key, value`."""
    lines = (line.replace(",", " ", 1).split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {key: value.strip() for key, value in lines}


def _class_names(root: Path) -> tuple[str, ...]:
    """Read classes.csv with header `name, id, ...` (Grocery Store), or return ()."""
    if not (root / "classes.csv").is_file():
        return ()
    rows = [r for r in csv.reader((root / "classes.csv").open(newline="")) if len(r) >= 2 and r[1].strip().isdigit()]
    return tuple(r[0] for r in sorted(rows, key=lambda r: int(r[1])))


def _subfolders(*roots: Path) -> tuple[str, ...]:
    return tuple(sorted({p.name for root in roots if root.is_dir() for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")}))


def _class_folders(root: Path, labels: tuple[str, ...]) -> tuple[Item, ...]:
    return tuple(Item(p, i) for i, label in enumerate(labels) for p in sorted((root / label).rglob("*")) if p.is_file() and is_image(p))


def split_record(data: DataSet) -> str:
    """Return the splits as JSON (paths relative to the root): what a run stores."""
    return json.dumps({s: [[str(i.path.relative_to(data.root)), i.label] for i in items] for s, items in data.splits.items()})
