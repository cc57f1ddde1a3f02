"""Reads plain folders: CLASS/*.jpg, train/CLASS/*.jpg, and CLASS/train/*.jpg."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from finedge.data.layouts.classes import ClassFolders, read_classes
from finedge.data.layouts.lists import stray_lists
from finedge.data.names import (
    looks_like_split,
    reason_to_ignore,
    refuse_splits_as_classes,
    split_of,
    unclear_split,
)
from finedge.data.record import SPLITS, Contents, Item, join_names
from finedge.data.walk import OURS, ImageFolder, LeftOutCounts, is_run_or_bundle, walk
from finedge.errors import DataError
from finedge.image import is_image
from finedge.sanitize import printable

BESIDE = "a picture beside the class folders"
BESIDE_SPLITS = "a picture outside the split folders"


def read_split_folders(root: Path) -> Contents | None:
    """train/CLASS/*.jpg [val/CLASS/... test/CLASS/...] (ImageFolder)."""
    folders = _visible_folders(root)
    splits = _split_folders(root, folders)
    if not splits:
        return None
    counts = LeftOutCounts(root)
    trees = {split: _unwrapped(walk(splits[split], counts)) for split in SPLITS if split in splits}
    renamed = [(s, splits[s].name) for s in trees if splits[s].name != s]
    entered = [tree.path.relative_to(root) for s, tree in trees.items() if tree.path != splits[s]]
    notes = [f"{printable(name)}/ is read as split '{split}'" for split, name in renamed]
    notes += [f"{printable(path)}/ is entered" for path in entered]
    _count_outside(root, set(splits.values()), counts)
    class_folders = read_classes(trees, root=root)
    return _contents(root, class_folders, counts, notes=notes, trees=trees)


def read_one_folder(root: Path) -> Contents | None:
    """CLASS/*.jpg (one ImageFolder, cut into train, val and test by a seed)."""
    counts = LeftOutCounts(root)
    tree = walk(root, counts)
    if not any(folder.has_pictures() for folder in tree.folders):
        return None
    tops = [folder.path.name for folder in tree.folders if folder.has_pictures()]
    if len(tops) > 1 and all(map(looks_like_split, tops)):
        refuse_splits_as_classes(tops, where=root)
    trees = _splits_within(tree)
    class_folders = read_classes(trees or {"train": tree}, root=root)
    for path in tree.pictures:
        counts.add(BESIDE, path)
    notes = ["the classes hold the splits: CLASS/train, CLASS/test"] if trees else []
    return _contents(root, class_folders, counts, notes=notes, has_splits=bool(trees))


def _contents(
    root: Path,
    class_folders: ClassFolders,
    counts: LeftOutCounts,
    *,
    notes: list[str],
    has_splits: bool = True,
    trees: Mapping[str, ImageFolder] | None = None,
) -> Contents:
    for tree in (trees or {}).values():
        for path in tree.pictures:
            counts.add(BESIDE, path)
    refuse_splits_as_classes(class_folders.labels, where=root)
    index = {label: i for i, label in enumerate(class_folders.labels)}
    splits = {}
    for split, pairs in class_folders.splits.items():
        items = (Item(path, index[label]) for label, path in pairs)
        splits[split] = tuple(sorted(items, key=lambda item: (item.label, item.path)))
    return Contents(
        root,
        class_folders.labels,
        splits,
        counts.left_out(),
        (*notes, *class_folders.notes, *stray_lists(root)),
        has_splits,
    )


def _visible_folders(root: Path) -> list[Path]:
    visible = sorted(path for path in root.iterdir() if not reason_to_ignore(path.name))
    return [path for path in visible if os.path.isdir(path)]  # noqa: PTH112


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Return the folder of each split: it has the name of a split and holds folders."""
    by_split: dict[str, Path] = {}
    for folder in folders:
        split = split_of(folder.name)
        if split is None or not _visible_folders(folder):
            continue
        if split in by_split:
            both = join_names((by_split[split].name, folder.name))
            raise DataError(
                f"{root} has two folders for split '{split}': {both}",
                expected="one",
                fix="merge or rename one",
            )
        by_split[split] = folder
    unclear = [f.name for f in folders if unclear_split(f.name) and _visible_folders(f)]
    if by_split and unclear:
        others = join_names(f.name for f in by_split.values())
        what = f"{root} has {join_names(unclear)} beside {others}: which split is it?"
        fix = "rename it to val or test, or move it away"
        raise DataError(what, expected="train, val and test", fix=fix)
    return by_split


def _unwrapped(tree: ImageFolder) -> ImageFolder:
    """Enter a folder that holds only one folder of class folders: an archive added it."""
    while not tree.pictures and len(tree.folders) == 1:
        (only,) = tree.folders
        classes = [folder for folder in only.folders if folder.has_pictures()]
        if only.pictures or not classes or not all(folder.pictures for folder in classes):
            break
        tree = only
    return tree


def _count_outside(root: Path, splits: set[Path], counts: LeftOutCounts) -> None:
    """Count files beside the split folders that look like data."""
    for path in sorted(root.iterdir()):
        reason = reason_to_ignore(path.name) or (OURS if is_run_or_bundle(path) else None)
        if path in splits:
            continue
        if reason:
            counts.add(reason, path)
        elif os.path.isdir(path):  # noqa: PTH112
            count = sum(1 for _ in walk(path, LeftOutCounts(root)).every())
            if count:
                counts.add(BESIDE_SPLITS, path, count=count)
        elif is_image(path):
            counts.add(BESIDE_SPLITS, path)


def _splits_within(tree: ImageFolder) -> dict[str, ImageFolder]:
    """Return CLASS/train/*.jpg as train/CLASS/*.jpg if every class holds splits only; else {}."""
    tops = [folder for folder in tree.folders if folder.has_pictures()]
    inner = [part for top in tops for part in top.folders if part.has_pictures()]
    if len(tops) < 2 or any(top.pictures for top in tops):
        return {}
    if not all(split_of(part.path.name) for part in inner):
        return {}
    present = {split_of(part.path.name) for part in inner}
    tree_of = {s: tuple(_split_of_class(top, s) for top in tops) for s in SPLITS if s in present}
    return {split: ImageFolder(tree.path, (), parts) for split, parts in tree_of.items()}


def _split_of_class(top: ImageFolder, split: str) -> ImageFolder:
    parts = [part for part in top.folders if split_of(part.path.name) == split]
    return ImageFolder(top.path, tuple(path for part in parts for path in part.every()))
