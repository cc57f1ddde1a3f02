"""Which files of a folder are the images of a stored split: they are known by their content."""

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
    """A file of the folder, the split it gives it (None: none), and whether an entry claimed it."""

    item: Item
    digest: str
    given: str | None
    claimed: bool = False


@dataclass
class _Placement:
    """The work: what goes into which split, and the counts."""

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
    """Return the folder `folder` (read, not cut) with the splits that are stored.

    A file goes into the split that stores its content. The folder's own splits are not overruled:
    a file in test/ is evaluated with test, even if it was trained on (`overlap` then finds it).
    Only files that were cut from the folder's train stay cut. A file with unknown content is left
    out, or goes into the split `new` unless the folder puts it into another.

    A folder without any known content is another data set, and its own splits count. If it has
    none, it is cut by `seed`. With `whole`, as for a measurement, all of it is test (or `new`),
    because training saw none of it. `exact` takes the stored splits and labels in their order, for
    a training that is resumed.
    """
    known = with_digests(stored, folder.root)
    present = _present(folder)
    by_digest: dict[str, list[_PresentFile]] = defaultdict(list)
    for one in present:
        by_digest[one.digest].append(one)
    if not any(e.digest in by_digest for _, e in known if e.digest) and not exact:
        own = _noted(folder, OWN)
        other = _another(folder, new=new, whole=whole) or with_cuts(own, seed=seed)
        _warn_of_saved_anew(folder, known)
        return replace(other, match=Match(new=len(present), taken=len(present)))
    work = _Placement()
    for split, entry in known:
        _place(work, split, entry, by_digest=by_digest, root=folder.root, stored=known, exact=exact)
    rest = [one for one in present if not one.claimed]
    copies, unknown, taken = _rest(work, rest, known, new=new, exact=exact)
    match = Match(
        known=len(present) - unknown,
        new=unknown,
        taken=taken,
        copies=copies,
        moved=work.moved,
        relabelled=work.relabelled,
        missing={s: tuple(paths) for s, paths in work.missing.items()},
    )
    return replace(
        folder,
        splits={s: tuple(items) for s, items in work.splits.items()},
        cut=stored.cut,
        match=match,
    )


def _another(folder: DataSet, *, new: NewImages, whole: bool) -> DataSet | None:
    """Return a folder without splits as one split; None where it has its own, or is to be cut."""
    if folder.given or not whole:
        return None
    split = "test" if new == "ignore" else new
    items = tuple(item for some in folder.splits.values() for item in some)
    noted = _noted(folder, f"{OTHER}, and all of it is taken as split '{split}'")
    return replace(noted, splits={s: items if s == split else () for s in SPLITS})


def _noted(data: DataSet, note: str) -> DataSet:
    return replace(data, notes=(*data.notes, note))


def _warn_of_saved_anew(folder: DataSet, stored: StoredSplit) -> None:
    """Say it where a folder has the names of the stored images, and other contents."""
    items = [item.path for some in folder.splits.values() for item in some]
    names = {folder.root / entry.path for _, entry in stored}
    same = sum(path in names for path in items)
    if 2 * same > len(items):
        log.warning(
            "%d image(s) of %s have the name of an image that training used, and another content:"
            " if they were saved anew, a number measured on them counts what was trained on",
            same,
            folder.root,
        )


def log_match(data: DataSet) -> None:
    """Log what a folder has more or less than the split that was stored."""
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
    counts = (
        (
            match.moved,
            "lie in another split of the folder than the stored one: the folder's counts",
        ),
        (
            match.relabelled,
            "stand under another label than when they were stored: the present one counts",
        ),
        (match.copies, "are further copies of images that are in use: they are left out"),
    )
    for count, text in counts:
        if count:
            log.warning("%d image(s) of %s %s", count, data.root, text)


def _present(folder: DataSet) -> list[_PresentFile]:
    known = digests(item.path for items in folder.splits.values() for item in items)
    return [
        _PresentFile(item, known.get(item.path, ""), split if folder.given else None)
        for split in SPLITS
        for item in folder.splits.get(split, ())
        if item.path in known
    ]


def _place(
    work: _Placement,
    split: str,
    entry: StoredImage,
    *,
    by_digest: dict[str, list[_PresentFile]],
    root: Path,
    stored: StoredSplit,
    exact: bool,
) -> None:
    """Let an entry claim its file: at its path, else of the same split in the folder, else any."""
    same = by_digest.get(entry.digest, ()) if entry.digest else ()
    free = [one for one in same if not one.claimed]
    if not free:
        work.missing[split].append(entry.path)
        return
    there = root / entry.path
    chosen = min(
        free,
        key=lambda one: (one.item.path != there, one.given not in (None, split), one.item.path),
    )
    chosen.claimed = True
    goes = split if exact else _goes(chosen, split, stored)
    work.moved += goes != split
    work.relabelled += chosen.item.label != entry.label
    work.splits[goes].append(replace(chosen.item, label=entry.label) if exact else chosen.item)


def _goes(one: _PresentFile, split: str, stored: StoredSplit) -> str:
    cut_from_train = split in (stored.cut or {}) and one.given == "train"
    return split if one.given is None or cut_from_train else one.given


def _rest(
    work: _Placement,
    rest: Sequence[_PresentFile],
    stored: StoredSplit,
    *,
    new: NewImages,
    exact: bool,
) -> tuple[int, int, int]:
    """Place what no entry claimed; return the counts of copies, new files, and new files taken."""
    where = {entry.digest: split for split, entry in stored if entry.digest}
    copies = unknown = taken = 0
    for one in rest:
        if one.digest in where:
            goes = where[one.digest] if exact else _goes(one, where[one.digest], stored)
            if goes == where[one.digest]:
                copies += 1
            else:  # the folder's own split holds a picture that is stored in another
                work.moved += 1
                work.splits[goes].append(one.item)
            continue
        unknown += 1
        if new != "ignore" and not exact and one.given in (None, new):
            taken += 1
            work.splits[new].append(one.item)
    return copies, unknown, taken
