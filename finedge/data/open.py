"""Opens a data set: finds its layout, cuts missing splits, reports what is left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from finedge.data.cut import with_cuts
from finedge.data.layouts import LAYOUTS
from finedge.data.names import reason_to_ignore, refuse_no_unicode
from finedge.data.record import SHOWN, SPLITS, Contents, DataSet, Item, LeftOut, join_names
from finedge.data.walk import is_run_or_bundle, pictures_below
from finedge.errors import DataError
from finedge.image import is_image, read_image
from finedge.sanitize import printable

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.02  # of all images; past this the data set is taken to be broken
THIN = 2.0  # fewer val images a class than this, on average, is thin
LEVELS = 3  # folders that hold nothing but one folder, as archives add them
QUIET = ("hidden", "made by a tool", "a run or a bundle")  # what nobody takes for data
UNLISTED = "a picture that no list names"


def open_dataset(root: Path, *, seed: int = 0) -> DataSet:
    """Detect the layout of `root`, read its splits, and cut what is missing from train.

    Where there is no val split it is cut from train (10 %); a folder without any split is cut into
    train, val and test. The cut goes by content and `seed` (see `finedge.data.cut`): it is the same
    on every machine, and no picture moves when others come.

    Raises:
        DataError: no layout fits, fewer than two classes, or a class without a training image.
    """
    data = with_cuts(read_folder(root), seed=seed)
    check(data)
    log_dataset(data)
    return data


def read_folder(root: Path) -> DataSet:
    """Read labels and splits as the folder has them; nothing is cut, and nothing is logged.

    Raises:
        DataError: no layout fits, or a file or folder that cannot be read.
    """
    root = Path(root)
    refuse_no_unicode([str(root)])
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder",
            expected="a folder of images",
            fix="finedge data render DIR makes one to try with",
        )
    try:
        return _read(root)
    except OSError as error:
        what = f"cannot read {printable(error.filename or root)}: {error.strerror}"
        raise DataError(
            what,
            expected="folders that this user may read",
            fix="chmod or chown it, or move it away",
        ) from error


def log_dataset(data: DataSet) -> None:
    """Log how a folder was read: layout, sizes, merged and entered folders, files left out."""
    log.info("%s", data.describe())
    for note in data.notes:
        log.info("%s", note)
    for left in data.left_out:
        level = logging.INFO if left.reason.startswith(QUIET) else logging.WARNING
        log.log(level, "left out: %s", left)
    if data.cut and data.match is None:
        what = (
            "no val split is given: it is" if data.given else "no split is given: val and test are"
        )
        log.info("%s cut from train, by content and seed", what)
    val = len(data.splits.get("val", ()))
    if val and not (data.cut or {}).get("val") and val < THIN * len(data.labels):
        log.warning(
            "the val split has %d image(s) for %d classes: it is kept as it is given",
            val,
            len(data.labels),
        )


def check(data: DataSet) -> None:
    """Refuse what nothing can be trained on; warn where a class is missing in val or test."""
    if len(data.labels) < 2:
        what = f"{data.root} has {len(data.labels)} class(es){_lost(data)}"
        raise DataError(what, expected="at least 2")
    absent = data.absent("train")
    if absent:
        names = f"{join_names(absent)}{_lost(data)}"
        what = f"{len(absent)} class(es) of {data.root} have no training image: {names}"
        raise DataError(what, expected="at least one each", fix="add images or remove the class")
    for split in ("val", "test"):
        missing = data.absent(split)
        if data.splits.get(split) and missing:
            log.warning(
                "%d class(es) have no image in split '%s' (n/a there): %s",
                len(missing),
                split,
                join_names(missing),
            )


def drop_unreadable(
    data: DataSet,
    *,
    splits: Iterable[str] = SPLITS,
    limit: float = MAX_UNREADABLE,
) -> DataSet:
    """Decode every image once; leave out those that fail; refuse more than a share of `limit`."""
    splits = tuple(splits)
    items_to_read = [i for s in splits for i in data.splits.get(s, ())]
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(_why_unreadable, items_to_read)
        bad = {item.path for item, why in zip(items_to_read, reasons, strict=True) if why}
    if not bad:
        return data
    listed = "\n    ".join(printable(p) for p in sorted(bad)[:20])
    more = "\n    ..." if len(bad) > 20 else ""
    text = f"{len(bad)} of {len(items_to_read)} images cannot be read:\n    {listed}{more}"
    if len(bad) > limit * len(items_to_read):
        fix = "repair or delete these files"
        raise DataError(text, expected=f"at most {limit:.0%} unreadable", fix=fix)
    log.warning("%s\n  they are left out", text)
    names = tuple(printable(path.name) for path in sorted(bad)[:SHOWN])
    left = LeftOut("an image that cannot be read", len(bad), names)
    kept = {s: tuple(i for i in items if i.path not in bad) for s, items in data.splits.items()}
    rest = replace(data, splits=kept, left_out=(*data.left_out, left))
    if "train" in splits:
        check(rest)
    return rest


def _read(root: Path) -> DataSet:
    notes: tuple[str, ...] = ()
    layout = _claimed(root, but=("folder",))
    while layout is None and len(notes) < LEVELS and (inner := _only_folder(root)) is not None:
        notes = (
            *notes,
            f"{printable(inner.name)}/ is entered: {printable(root)} holds nothing else",
        )
        root = inner
        layout = _claimed(root, but=("folder",))
    layout = layout or _claimed(root)
    if layout is None:
        forms = (f"{name}: {(r.__doc__ or '').splitlines()[0]}" for name, r in LAYOUTS.items())
        raise DataError(f"no known layout of images in {root}", expected="; ".join(forms))
    name, read = layout
    left_out = (*read.left_out, *(_unlisted(read) if name == "lists" else ()))
    remarks = (*notes, *read.notes)
    return DataSet(read.root, name, read.labels, read.splits, None, left_out, remarks, read.given)


def _claimed(root: Path, *, but: tuple[str, ...] = ()) -> tuple[str, Contents] | None:
    """Return the first layout that knows a folder, and what it read."""
    readings = ((name, reader(root)) for name, reader in LAYOUTS.items() if name not in but)
    return next(((name, read) for name, read in readings if read is not None), None)


def _only_folder(root: Path) -> Path | None:
    """Return the one visible folder of `root`, an archive's own, where neither holds a picture."""
    folders = _folders(root)
    if len(folders) != 1 or not _folders(folders[0]):
        return None
    return None if _pictures(root) or _pictures(folders[0]) else folders[0]


def _folders(root: Path) -> list[Path]:
    visible = [p for p in root.iterdir() if not reason_to_ignore(p.name) and p.is_dir()]
    return [p for p in visible if not is_run_or_bundle(p)]


def _pictures(root: Path) -> bool:
    return any(is_image(p) and not reason_to_ignore(p.name) for p in root.iterdir())


def _unlisted(contents: Contents) -> tuple[LeftOut, ...]:
    listed = {item.path for items in contents.splits.values() for item in items}
    try:
        missing = [p for p in pictures_below(contents.root)[0] if p not in listed]
    except (OSError, DataError):  # of a folder that no list speaks of
        return ()
    names = tuple(printable(p.relative_to(contents.root)) for p in missing[:10])
    return (LeftOut(UNLISTED, len(missing), names),) if missing else ()


def _lost(data: DataSet) -> str:
    """Return what was left out and may explain a class without images, or ''."""
    return "".join(f"; left out: {left}" for left in data.left_out)


def _why_unreadable(item: Item) -> str:
    try:
        read_image(item.path)
    except DataError as error:
        return str(error)
    return ""
