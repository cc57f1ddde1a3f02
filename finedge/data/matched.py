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
from finedge.data.names import label_text
from finedge.data.record import SPLITS, DataSet, Item, Match, named
from finedge.data.stored import Entry, StoredSplit, filled
from finedge.errors import DataError

log = logging.getLogger(__name__)

NewImages = Literal["ignore", "train", "val", "test"]


@dataclass
class _Present:
    """A file of the folder, the split it gives it (None: none), and whether an entry claimed it."""

    item: Item
    digest: str
    given: str | None
    claimed: bool = False


@dataclass
class _Placing:
    """The work: what goes into which split, and the counts."""

    splits: dict[str, list[Item]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    missing: dict[str, list[str]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    moved: int = 0
    relabelled: int = 0


def matched(
    folder: DataSet,
    stored: StoredSplit,
    *,
    new: NewImages = "ignore",
    seed: int = 0,
    exact: bool = False,
) -> DataSet:
    """Return the folder `folder` (read, not cut) with the splits that are stored.

    A file goes where its content is stored. A split that the folder gives is not overruled: what
    lies in test/ is evaluated with test, though it was trained on (`overlap` then finds it). Only
    what was cut from the folder's train stays cut. A file of unknown content goes nowhere, or into
    the split `new` unless the folder puts it into another. A folder without any known content is
    another data set: its own splits hold, cut by `seed` where it has none. `exact` takes the stored
    splits and labels as they are, in their order, for a training that goes on.
    """
    known = filled(stored, folder.root)
    present = _present(folder)
    by_digest: dict[str, list[_Present]] = defaultdict(list)
    for one in present:
        by_digest[one.digest].append(one)
    if not any(e.digest in by_digest for _, e in known if e.digest) and not exact:
        note = "no image of it is in the stored split: another data set, with its own splits"
        other = with_cuts(replace(folder, notes=(*folder.notes, note)), seed=seed)
        return replace(other, match=Match(new=len(present), taken=len(present)))
    work = _Placing()
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


def say_match(data: DataSet) -> None:
    """Log what a folder has more or less than the split that was stored."""
    match = data.match
    if match is None:
        return
    if match.new > match.taken:
        log.warning(
            "%d image(s) of %s are new to the stored split: they are left out (--new-images)",
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
                named(paths),
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


def refuse_other_labels(data: DataSet, labels: Sequence[str], *, owner: object) -> None:
    """Refuse a data set whose labels are not these, in this order."""
    ours, theirs = tuple(map(label_text, labels)), tuple(map(label_text, data.labels))
    if ours == theirs:
        return
    fix = "use the data set it was trained for"
    if len(ours) != len(theirs):
        strange = named(sorted(set(ours) ^ set(theirs)), shown=5)
        what = f"{data.root} has {len(theirs)} classes (other than expected: {strange})"
        raise DataError(what, expected=f"the {len(ours)} of {owner}, the same labels", fix=fix)
    index = next(i for i in range(len(ours)) if ours[i] != theirs[i])
    what = f"class {index} of {data.root} is '{theirs[index]}'"
    expected = f"'{ours[index]}' as in {owner}: the same labels in the same order"
    raise DataError(what, expected=expected, fix=fix)


def _present(folder: DataSet) -> list[_Present]:
    known = digests(item.path for items in folder.splits.values() for item in items)
    return [
        _Present(item, known.get(item.path, ""), split if folder.given else None)
        for split in SPLITS
        for item in folder.splits.get(split, ())
        if item.path in known
    ]


def _place(
    work: _Placing,
    split: str,
    entry: Entry,
    *,
    by_digest: dict[str, list[_Present]],
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


def _goes(one: _Present, split: str, stored: StoredSplit) -> str:
    cut_from_train = split in (stored.cut or {}) and one.given == "train"
    return split if one.given is None or cut_from_train else one.given


def _rest(
    work: _Placing,
    rest: Sequence[_Present],
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
