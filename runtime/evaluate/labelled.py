"""The labelled images of a bundle: the split that its training stored, found by content."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from finedge.bundle import Bundle
from finedge.data import (
    DataSet,
    Evaluated,
    NewImages,
    StoredSplit,
    evaluated,
    matched,
    read_folder,
    say,
    say_match,
    with_labels,
)
from finedge.data.cut import with_cuts
from finedge.data.digest import digests
from finedge.data.stored import FILE, unpack
from finedge.errors import UsageError

log = logging.getLogger(__name__)


def bundle_dataset(
    bundle: Bundle,
    data: Path | None = None,
    *,
    new_images: NewImages = "ignore",
    whole: bool = False,
) -> DataSet:
    """Open a data set for a bundle: `data`, or the images its training recorded; splits as stored.

    With `whole` another data set that has no splits is not cut: see `finedge.data.matched`.

    Raises:
        UsageError: neither is there, or `new_images` for a bundle that stores no split.
        DataError: it has labels that the bundle does not know.
    """
    root = data or recorded_root(bundle)
    if root is None or (data is None and not root.is_dir()):
        raise UsageError(
            f"{bundle.path} was trained on {root or 'images it does not name'}, which is not here",
            expected="a folder of images",
            fix="--data DIR",
        )
    stored, seed = stored_split(bundle), bundle.training.data.seed
    if stored is None and new_images != "ignore":
        option = f"--new-images {new_images}"
        what = f"{option}: {bundle.path} stores no split, so no image is new to it"
        fix = "leave it out; or train and export again, which stores the split"
        raise UsageError(what, fix=fix)
    folder = with_labels(read_folder(root), bundle.spec.labels, owner=bundle.path)
    if stored is None:
        folder = with_cuts(folder, seed=seed)
        say(folder)
        how = "cut anew" if folder.cut else "taken as the folder gives it"
        text = "%s stores no split of its training: that of %s is %s"
        log.warning(text, bundle.path, folder.root, how)
        return folder
    placed = matched(folder, stored, new=new_images, seed=seed, whole=whole)
    say(placed)
    say_match(placed)
    return placed


def evaluated_images(
    bundle: Bundle,
    data: Path | None,
    *,
    split: str,
    new_images: NewImages = "ignore",
    allow_overlap: bool = False,
) -> Evaluated:
    """Return the images of a split that a bundle is measured on, and what the result says of them.

    Raises:
        UsageError: there is no data.
        DataError: see `finedge.data.evaluated`.
    """
    dataset = bundle_dataset(bundle, data, new_images=new_images, whole=True)
    chosen = evaluated(dataset, stored_split(bundle), split=split, allow_overlap=allow_overlap)
    calibrated = _calibrated(bundle, chosen, split)
    return replace(chosen, record={**chosen.record, "calibrated": calibrated})


def _calibrated(bundle: Bundle, chosen: Evaluated, split: str) -> int:
    """Count the images that the INT8 ranges were taken from; warn of them outside of train."""
    seen = frozenset(bundle.calibration.images_sha256)
    known = digests(item.path for item in chosen.items) if seen else {}
    count = sum(known.get(item.path) in seen for item in chosen.items)
    if count and split != "train":
        text = "%d image(s) of split '%s' calibrated the INT8 variants: theirs may be a little too good"
        log.warning(text, count, split)
    return count


def stored_split(bundle: Bundle) -> StoredSplit | None:
    """Return the split that the training stored, or None; `DataError` if it is damaged."""
    if FILE not in bundle.files:
        return None
    return unpack((bundle.path / FILE).read_bytes(), source=bundle.path / FILE)


def recorded_root(bundle: Bundle) -> Path | None:
    """Return the folder of the images that the bundle's record names, wherever that is now."""
    root = bundle.training.data.root
    return Path(root) if root else None
