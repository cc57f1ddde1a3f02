"""Decides which folders are classes: those at the top, or the innermost ones below groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.data.names import label_text, looks_like_split, refuse_alike, refuse_not_unicode
from finedge.data.record import join_names
from finedge.data.walk import ImageFolder
from finedge.errors import DataError
from finedge.sanitize import printable

Pairs = tuple[tuple[str, Path], ...]


@dataclass(frozen=True)
class ClassFolders:
    """Labels, sorted; (label, path) of every picture by split; and notes on merged folders."""

    labels: tuple[str, ...]
    splits: Mapping[str, Pairs]
    notes: tuple[str, ...] = ()


def read_classes(trees: Mapping[str, ImageFolder], *, root: Path) -> ClassFolders:
    """Return the classes of folders: one tree for each split.

    A folder at the top that holds pictures is a class. Pictures in folders below it belong to that
    class too. Where no folder at the top holds pictures, those folders are groups, and the
    innermost folders are classes.

    Raises:
        DataError: it is not clear which folders are classes, or a name is not Unicode.
    """
    tops = [(split, top) for split, tree in trees.items() for top in tree.folders]
    direct = {top.path.name for _, top in tops if top.pictures}
    deep = {top.path.name for _, top in tops if any(f.has_pictures() for f in top.folders)}
    if not deep - direct:
        classes = [(split, top.path.name, top) for split, top in tops]
        return _class_folders(classes, root=root, notes=_merged(tops))
    if direct:
        with_pictures, with_folders = join_names(sorted(direct)), join_names(sorted(deep - direct))
        sides = f"{with_pictures} hold pictures, {with_folders} hold folders"
        raise DataError(
            f"which folders of {root} are classes? {sides}",
            expected="CLASS/*.jpg everywhere, or GROUP/CLASS/*.jpg everywhere",
            fix="move the folders to one level, or write a list (train.csv with lines path,label)",
        )
    leaves = [
        (split, path, leaf) for split, top in tops for path, leaf in _leaves(top, (top.path.name,))
    ]
    _refuse_nested(leaves, root=root)
    moved = _moved(leaves, root=root)
    groups = join_names(sorted({path[0] for _, path, _ in leaves}))
    note = f"groups of classes: {groups}; the innermost folders are the classes"
    classes = [(split, path[-1], leaf) for split, path, leaf in leaves]
    return _class_folders(classes, root=root, notes=[note, *moved])


def _merged(tops: list[tuple[str, ImageFolder]]) -> list[str]:
    below = [folder for _, top in tops for folder in top.folders if folder.has_pictures()]
    if not below:
        return []
    count = sum(1 for folder in below for _ in folder.every())
    names = join_names(f"{folder.path.parent.name}/{folder.path.name}" for folder in below)
    text = "picture(s) in folders inside class folders belong to the class above"
    return [f"{count} {text}: {names}"]


def _leaves(
    folder: ImageFolder, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], ImageFolder]]:
    """Yield the innermost folders, and those with pictures beside folders (refused later)."""
    if folder.pictures or not folder.folders:
        yield path, ImageFolder(folder.path, folder.pictures)
    for inner in folder.folders:
        yield from _leaves(inner, (*path, inner.path.name))


Leaves = list[tuple[str, tuple[str, ...], ImageFolder]]  # (split, names from the top, folder)


def _moved(leaves: Leaves, *, root: Path) -> list[str]:
    """Return notes on classes whose folder differs between splits within one group.

    A name that appears twice in one split, or in two groups, is refused. It may be a part of a
    class: `crow/2024`.
    """
    places: dict[str, dict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    for split, path, _ in leaves:
        places[label_text(path[-1])][split].add(tuple(map(label_text, path)))
    moved = []
    for label, by_split in sorted(places.items()):
        paths = sorted(set[tuple[str, ...]]().union(*by_split.values()))
        if len(paths) == 1:
            continue
        listed = join_names("/".join(path) for path in paths)
        tops = {path[0] for path in paths}
        if len(tops) > 1 or any(len(folders) > 1 for folders in by_split.values()):
            fix = "move the pictures up into their class folders, or write a list: train.csv"
            if len(tops) > 1 and all(map(looks_like_split, tops)):
                names = join_names(sorted(tops))
                fix = f"{names} look like splits: rename them to train, val and test"
            raise DataError(
                f"which folders of {root} are classes? '{label}' appears in several: {listed}",
                expected="CLASS/*.jpg, or GROUP/CLASS/*.jpg with a different name for each class",
                fix=fix,
            )
        moved.append(f"one class in several places: {listed}")
    return moved


def _refuse_nested(leaves: Leaves, *, root: Path) -> None:
    paths = {path for _, path, leaf in leaves if leaf.pictures}
    above = (path[:n] for path in sorted(paths) for n in range(1, len(path)))
    outer = next((path for path in above if path in paths), None)
    if outer:
        name = "/".join(map(printable, outer))
        raise DataError(
            f"which folders of {root} are classes? {name} holds pictures and folders of pictures",
            expected="pictures in the innermost folders only",
            fix="move them to one level, or write a list (train.csv with lines path,label)",
        )


def _class_folders(
    classes: list[tuple[str, str, ImageFolder]], *, root: Path, notes: list[str]
) -> ClassFolders:
    written: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, list[tuple[str, Path]]] = {split: [] for split, _, _ in classes}
    refuse_not_unicode([str(root)])
    for split, name, folder in classes:
        refuse_not_unicode([name])
        written[label_text(name)].add(name)
        paths = list(folder.every())
        refuse_not_unicode(str(path) for path in paths)
        splits[split] += [(label_text(name), path) for path in paths]
    merged = sorted(label for label, names in written.items() if len(names) > 1)
    if merged:
        text = "folders whose names differ only in their Unicode form are one class"
        notes = [*notes, f"{text}: {join_names(merged)}"]
    labels = tuple(sorted(written))
    refuse_alike(labels, where=root)
    return ClassFolders(
        labels, {split: tuple(pairs) for split, pairs in splits.items()}, tuple(notes)
    )
