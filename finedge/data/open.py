"""Opens a data set: finds its layout, cuts missing splits, logs the files that are left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from finedge.data.cut import VAL_OF_TRAIN, with_cuts
from finedge.data.layouts import LAYOUTS
from finedge.data.names import reason_to_ignore, refuse_not_unicode
from finedge.data.record import MAX_SHOWN, SPLITS, Contents, DataSet, Item, LeftOut, join_names
from finedge.data.walk import is_run_or_bundle, pictures_below
from finedge.errors import DataError
from finedge.image import is_image, read_image
from finedge.sanitize import printable

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.02  # share of all images; above it the data set counts as broken
MIN_VAL_PER_CLASS = 2.0  # images, on average; a smaller val split is logged
MAX_WRAPPERS = 3  # folders around the data that hold only one folder, as archives add them
# Beginnings of the reasons that are logged quietly: nobody takes such files for data.
QUIET_REASONS = ("hidden", "made by a tool", "a run or a bundle")
UNLISTED = "a picture that no list names"


def open_dataset(root: Path, *, seed: int = 0, val: float = VAL_OF_TRAIN) -> DataSet:
    """Detect the layout of `root`, read its splits, and cut what is missing from train.

    A missing val split is cut from train: the share `val` of it, 10 % by default. With 0 there is
    no val split, and all of train stays train. A folder without any split is cut into train, val
    and test. The cut depends on content and `seed` (see `finedge.data.cut`). It is the same on
    every machine, and no picture moves when others are added.

    Examples:
        >>> data = open_dataset(Path("birds"))
        >>> data.labels
        ('dusky-finch', 'ringed-finch')
        >>> {split: len(images) for split, images in data.splits.items()}
        {'train': 4, 'val': 2, 'test': 2}

    Raises:
        DataError: no layout fits, fewer than two classes, or a class without a training image.
    """
    data = with_cuts(read_folder(root), seed=seed, val_share=val)
    check(data)
    log_dataset(data)
    return data


def read_folder(root: Path) -> DataSet:
    """Read labels and splits as the folder has them, without cutting or logging.

    Raises:
        DataError: no layout fits, or a file or folder cannot be read.
    """
    root = Path(root)
    refuse_not_unicode([str(root)])
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder",
            expected="a folder of images",
            fix="finedge data render DIR makes one to try",
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
        level = logging.INFO if left.reason.startswith(QUIET_REASONS) else logging.WARNING
        log.log(level, "left out: %s", left)
    if data.cut and data.match is None:
        _log_cut(data)
    val = len(data.splits.get("val", ()))
    if val and not (data.cut or {}).get("val") and val < MIN_VAL_PER_CLASS * len(data.labels):
        log.warning(
            "the val split has %d image(s) for %d classes: it is used as it is",
            val,
            len(data.labels),
        )


def _log_cut(data: DataSet) -> None:
    cut = [split for split in ("val", "test") if (data.cut or {}).get(split)]
    if cut:
        missing = "the folder has no val split: it is"
        if not data.has_splits:
            missing = f"the folder has no splits: {' and '.join(cut)} {'are' if cut[1:] else 'is'}"
        log.info("%s cut from train, by content and seed", missing)
    if not data.splits.get("val"):
        log.warning(
            "val = 0: there is no val split. Training reports no accuracy, and finedge calibrate "
            "fits no confidence; finedge evaluate measures test"
        )


def check(data: DataSet) -> None:
    """Refuse data that cannot be trained on; warn where a class is missing in val or test."""
    if len(data.labels) < 2:
        what = f"{data.root} has {len(data.labels)} class(es){_left_out_text(data)}"
        raise DataError(what, expected="at least 2")
    absent = data.absent("train")
    if absent:
        names = f"{join_names(absent)}{_left_out_text(data)}"
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
    """Decode every image once; leave out those that fail; refuse a share above `limit`."""
    splits = tuple(splits)
    items = [item for split in splits for item in data.splits.get(split, ())]
    with ThreadPoolExecutor() as pool:
        errors = pool.map(_read_error, items)
        bad = {item.path for item, error in zip(items, errors, strict=True) if error}
    if not bad:
        return data
    listed = "\n    ".join(printable(path) for path in sorted(bad)[:20])
    more = "\n    ..." if len(bad) > 20 else ""
    text = f"{len(bad)} of {len(items)} images cannot be read:\n    {listed}{more}"
    if len(bad) > limit * len(items):
        fix = "repair or delete these files"
        raise DataError(text, expected=f"at most {limit:.0%} unreadable", fix=fix)
    log.warning("%s\n  they are left out", text)
    names = tuple(printable(path.name) for path in sorted(bad)[:MAX_SHOWN])
    left = LeftOut("an image that cannot be read", len(bad), names)
    kept = {s: tuple(i for i in items if i.path not in bad) for s, items in data.splits.items()}
    rest = replace(data, splits=kept, left_out=(*data.left_out, left))
    if "train" in splits:
        check(rest)
    return rest


def _read(root: Path) -> DataSet:
    notes: tuple[str, ...] = ()
    layout = _first_layout(root, except_for=("folder",))
    while (
        layout is None and len(notes) < MAX_WRAPPERS and (inner := _only_folder(root)) is not None
    ):
        notes = (
            *notes,
            f"{printable(inner.name)}/ is entered: {printable(root)} holds only this folder",
        )
        root = inner
        layout = _first_layout(root, except_for=("folder",))
    layout = layout or _first_layout(root)
    if layout is None:
        forms = (f"{name}: {(r.__doc__ or '').splitlines()[0]}" for name, r in LAYOUTS.items())
        raise DataError(f"no known layout of images in {root}", expected="; ".join(forms))
    name, read = layout
    left_out = (*read.left_out, *(_unlisted(read) if name == "lists" else ()))
    remarks = (*notes, *read.notes)
    return DataSet(
        read.root, name, read.labels, read.splits, None, left_out, remarks, read.has_splits
    )


def _first_layout(root: Path, *, except_for: tuple[str, ...] = ()) -> tuple[str, Contents] | None:
    """Return the first layout that recognises a folder, and its contents."""
    readings = ((name, reader(root)) for name, reader in LAYOUTS.items() if name not in except_for)
    return next(((name, read) for name, read in readings if read is not None), None)


def _only_folder(root: Path) -> Path | None:
    """Return the one visible folder of `root` if neither holds pictures: an archive added it."""
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
    except (OSError, DataError):  # in a folder that no list names
        return ()
    names = tuple(printable(p.relative_to(contents.root)) for p in missing[:10])
    return (LeftOut(UNLISTED, len(missing), names),) if missing else ()


def _left_out_text(data: DataSet) -> str:
    """Return which files were left out, to explain a class without images; '' for none."""
    return "".join(f"; left out: {left}" for left in data.left_out)


def _read_error(item: Item) -> str:
    """Return why an image cannot be read, or ''."""
    try:
        read_image(item.path)
    except DataError as error:
        return str(error)
    return ""
