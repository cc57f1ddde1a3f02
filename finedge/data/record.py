"""Records of a data set that was read: images, labels, splits, and files left out or merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finedge.errors import DataError, nearest
from finedge.sanitize import printable

SPLITS = ("train", "val", "test")
MAX_SHOWN = 10  # names that a message or a record lists; counts are always complete


@dataclass(frozen=True)
class Item:
    """One labelled image."""

    path: Path
    label: int


@dataclass(frozen=True)
class LeftOut:
    """Files outside the data set: the reason, how many, and up to `MAX_SHOWN` of their names."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line for the log."""
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} x {self.reason}: {', '.join(self.examples)}{more}"


@dataclass(frozen=True)
class Contents:
    """The result of a layout's reader; `root` holds the images, the rest is as in `DataSet`."""

    root: Path
    labels: tuple[str, ...]
    splits: dict[str, tuple[Item, ...]]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    has_splits: bool = True


@dataclass(frozen=True)
class Match:
    """How the files of a folder match a stored split: numbers of files, and missing paths.

    Attributes:
        known: files whose content is in the stored split.
        new: files whose content is not in it.
        taken: those new files that were requested and are used.
        copies: more files with a content that is already used.
        moved: files whose split in the folder differs from the stored one.
        relabelled: files whose label differs from the stored one; the present label counts.
        missing: stored paths whose content is in no file of the folder, by split.
    """

    known: int = 0
    new: int = 0
    taken: int = 0
    copies: int = 0
    moved: int = 0
    relabelled: int = 0
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the counts; `missing` by split."""
        missing = {split: len(paths) for split, paths in self.missing.items() if paths}
        return {**{k: v for k, v in vars(self).items() if k != "missing"}, "missing": missing}


@dataclass(frozen=True)
class DataSet:
    """Labels and splits of a folder.

    Attributes:
        root: the folder that holds the images.
        layout: the name of the layout that was read.
        labels: the labels, in the order of the classes.
        splits: the images of each split.
        cut: how val or test were cut; None: they are the folder's own.
        left_out: files outside the data set, by reason.
        notes: folders that were merged, entered or read under another name, in words.
        has_splits: the folder itself has splits.
        match: how it matches the stored split, where that was used.
    """

    root: Path
    layout: str
    labels: tuple[str, ...]
    splits: Mapping[str, tuple[Item, ...]]
    cut: Mapping[str, Any] | None = None
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    has_splits: bool = True
    match: Match | None = None

    def split(self, name: str) -> tuple[Item, ...]:
        """Return the images of a split; an unknown or empty one raises `DataError`."""
        items = self.splits.get(name, ())
        if items:
            return items
        what = f"{self.root} has no images in split '{name}'"
        if self.match is not None and self.match.new > self.match.taken:
            new = self.match.new - self.match.taken
            fix = f"--new-images {name}" if name in SPLITS else ""
            raise DataError(
                f"{what}; {new} image(s) are new to the stored split",
                expected=self._split_names(name),
                fix=fix,
            )
        raise DataError(what, expected=self._split_names(name))

    def absent(self, name: str) -> tuple[str, ...]:
        """Return the labels without an image in a split."""
        present = {i.label for i in self.splits.get(name, ())}
        return tuple(label for index, label in enumerate(self.labels) if index not in present)

    def describe(self) -> str:
        """Return layout and sizes in one line."""
        sizes = ", ".join(f"{len(self.splits.get(s, ()))} {s}" for s in SPLITS)
        text = f"{self.root}: layout '{self.layout}', {len(self.labels)} classes, {sizes}"
        return text + (f" (cut: {dict(self.cut)})" if self.cut else "")

    def to_json(self) -> dict[str, Any]:
        """Return the record in run.json of how the folder was read."""
        left_out = [{**vars(left), "examples": list(left.examples)} for left in self.left_out]
        return {
            "layout": self.layout,
            "cut": self.cut,
            "left_out": left_out,
            "notes": list(self.notes),
        }

    def _split_names(self, name: str) -> str:
        return nearest(name, [s for s in self.splits if self.splits[s]])


def join_names(names: Iterable[object], *, shown: int = MAX_SHOWN) -> str:
    """Return up to `shown` names in one line; dots mean that there are more."""
    listed = list(names)
    more = ", ..." if len(listed) > shown else ""
    return ", ".join(printable(name) for name in listed[:shown]) + more
