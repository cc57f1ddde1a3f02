"""Finds the images of a stored split among the files of a folder, by content."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from finedge.data.cut import with_cuts
from finedge.data.digest import digests
from finedge.data.record import SPLITS, DataSet, Item, Match, join_names
from finedge.data.stored_split import StoredImage, StoredSplit, with_digests

log = logging.getLogger(__name__)

NewImages = Literal["ignore", "train", "val", "test"]
OTHER = "no image of it is in the stored split: another data set"
OWN = f"{OTHER}, with its own splits"


@dataclass
class _PresentFile:
    """A file of the folder, its split there (None: none), and whether a stored image claimed it."""

    item: Item
    digest: str
    folder_split: str | None
    claimed: bool = False


@dataclass
class _Placement:
    """The result so far: the images of each split, stored paths that are missing, and counts."""

    splits: dict[str, list[Item]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    missing: dict[str, list[str]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    moved: int = 0
    relabelled: int = 0


def match_split(
    folder: DataSet,
    stored: StoredSplit,
    *,
    new: NewImages = "ignore",
    seed: int = 0,
    exact: bool = False,
    whole: bool = False,
) -> DataSet:
    """Return `folder`, which was read and not cut, with the splits that are stored.

    A file goes into the split that stores its content. The folder's own splits take precedence:
    a file in test/ is evaluated with test, even if it was trained on (`overlap` then finds it).
    Only files that were cut from the folder's train stay cut.

    A folder without any known content is another data set, and its own splits count.

    Args:
        folder: the data set as `read_folder` returns it.
        stored: the split that training used.
        new: the split of files with unknown content, unless the folder puts them into another;
            `ignore` leaves them out.
        seed: cuts another data set that has no splits.
        exact: use the stored splits and labels in their order, to resume a training.
        whole: use all of another data set without splits as test (or `new`), as for a
            measurement: training saw none of it.
    """
    stored = with_digests(stored, folder.root)
    present = _present_files(folder)
    by_digest: dict[str, list[_PresentFile]] = defaultdict(list)
    for file in present:
        by_digest[file.digest].append(file)
    any_known = any(entry.digest in by_digest for _, entry in stored if entry.digest)
    if not any_known and not exact:
        own = _with_note(folder, OWN)
        other = _as_one_split(folder, new=new, whole=whole) or with_cuts(own, seed=seed)
        _warn_of_same_names(folder, stored)
        return replace(other, match=Match(new=len(present), taken=len(present)))
    placed = _Placement()
    root = folder.root
    for split, entry in stored:
        _place(placed, split, entry, by_digest=by_digest, root=root, stored=stored, exact=exact)
    rest = [file for file in present if not file.claimed]
    copies, unknown, taken = _place_rest(placed, rest, stored, new=new, exact=exact)
    match = Match(
        known=len(present) - unknown,
        new=unknown,
        taken=taken,
        copies=copies,
        moved=placed.moved,
        relabelled=placed.relabelled,
        missing={s: tuple(paths) for s, paths in placed.missing.items()},
    )
    return replace(
        folder,
        splits={s: tuple(items) for s, items in placed.splits.items()},
        cut=stored.cut,
        match=match,
    )


def _as_one_split(folder: DataSet, *, new: NewImages, whole: bool) -> DataSet | None:
    """Return a folder without splits as one split; None where it has its own or must be cut."""
    if folder.has_splits or not whole:
        return None
    split = "test" if new == "ignore" else new
    images = tuple(item for items in folder.splits.values() for item in items)
    noted = _with_note(folder, f"{OTHER}, and all of it is taken as split '{split}'")
    return replace(noted, splits={s: images if s == split else () for s in SPLITS})


def _with_note(data: DataSet, note: str) -> DataSet:
    return replace(data, notes=(*data.notes, note))


def _warn_of_same_names(folder: DataSet, stored: StoredSplit) -> None:
    """Warn where most files have the name of a stored image and another content."""
    paths = [item.path for items in folder.splits.values() for item in items]
    names = {folder.root / entry.path for _, entry in stored}
    same = sum(path in names for path in paths)
    if 2 * same > len(paths):
        log.warning(
            "%d image(s) of %s have the name of an image that training used, and another content: "
            "if they were only saved again, a number measured on them includes training images",
            same,
            folder.root,
        )


def log_match(data: DataSet) -> None:
    """Log the differences between a folder and the stored split."""
    match = data.match
    if match is None:
        return
    if match.new > match.taken:
        log.warning(
            "%d image(s) of %s are not in the stored split and are left out "
            "(--new-images train, val or test adds them)",
            match.new - match.taken,
            data.root,
        )
    for split, paths in match.missing.items():
        if paths:
            log.warning(
                "%d image(s) of the stored split '%s' are not in %s: %s",
                len(paths),
                split,
                data.root,
                join_names(paths),
            )
    moved = "are in another split of the folder than the stored one: the folder's split is used"
    relabelled = "have another label than when they were stored: the present label is used"
    copies = "are more copies of images that are already used: they are left out"
    remarks = ((match.moved, moved), (match.relabelled, relabelled), (match.copies, copies))
    for count, text in remarks:
        if count:
            log.warning("%d image(s) of %s %s", count, data.root, text)


def _present_files(folder: DataSet) -> list[_PresentFile]:
    digest_of = digests(item.path for items in folder.splits.values() for item in items)
    return [
        _PresentFile(item, digest_of.get(item.path, ""), split if folder.has_splits else None)
        for split in SPLITS
        for item in folder.splits.get(split, ())
        if item.path in digest_of
    ]


def _place(
    placed: _Placement,
    split: str,
    entry: StoredImage,
    *,
    by_digest: dict[str, list[_PresentFile]],
    root: Path,
    stored: StoredSplit,
    exact: bool,
) -> None:
    """Give a stored image its file: at its path, else in the same split of the folder, else any."""
    same = by_digest.get(entry.digest, ()) if entry.digest else ()
    free = [file for file in same if not file.claimed]
    if not free:
        placed.missing[split].append(entry.path)
        return
    stored_path = root / entry.path

    def order(file: _PresentFile) -> tuple[bool, bool, Path]:
        path = file.item.path
        return path != stored_path, file.folder_split not in (None, split), path

    chosen = min(free, key=order)
    chosen.claimed = True
    target = split if exact else _target_split(chosen, split, stored)
    placed.moved += target != split
    placed.relabelled += chosen.item.label != entry.label
    item = replace(chosen.item, label=entry.label) if exact else chosen.item
    placed.splits[target].append(item)


def _target_split(file: _PresentFile, split: str, stored: StoredSplit) -> str:
    """Return the split of a file: the stored one, unless the folder has its own for it."""
    cut_from_train = split in (stored.cut or {}) and file.folder_split == "train"
    return split if file.folder_split is None or cut_from_train else file.folder_split


def _place_rest(
    placed: _Placement,
    rest: Sequence[_PresentFile],
    stored: StoredSplit,
    *,
    new: NewImages,
    exact: bool,
) -> tuple[int, int, int]:
    """Place files that no stored image claimed; return the counts of copies, new and used new."""
    split_of = {entry.digest: split for split, entry in stored if entry.digest}
    copies = unknown = taken = 0
    for file in rest:
        stored_split = split_of.get(file.digest)
        if stored_split is not None:
            target = stored_split if exact else _target_split(file, stored_split, stored)
            if target == stored_split:
                copies += 1
            else:  # the folder's own split holds a picture that is stored in another
                placed.moved += 1
                placed.splits[target].append(file.item)
            continue
        unknown += 1
        if new != "ignore" and not exact and file.folder_split in (None, new):
            taken += 1
            placed.splits[new].append(file.item)
    return copies, unknown, taken
