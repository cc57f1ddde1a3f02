"""The labelled images of a bundle: the split that its training stored, found by content."""

from __future__ import annotations

import logging
from pathlib import Path

from finedge.bundle import Bundle
from finedge.data import (
    DataSet,
    Evaluated,
    NewImages,
    StoredSplit,
    evaluated,
    matched,
    open_dataset,
    read_folder,
    refuse_other_labels,
    say,
    say_match,
)
from finedge.data.stored import FILE, unpack
from finedge.errors import UsageError

log = logging.getLogger(__name__)


def bundle_dataset(
    bundle: Bundle,
    data: Path | None = None,
    *,
    new_images: NewImages = "ignore",
) -> DataSet:
    """Open a data set for a bundle: `data`, or the images its training recorded; splits as stored.

    Raises:
        UsageError: neither is there, or `new_images` for a bundle that stores no split.
        DataError: its labels are not the bundle's.
    """
    root = data or recorded_root(bundle)
    if root is None or (data is None and not root.is_dir()):
        raise UsageError(
            f"{bundle.path} was trained on {root or 'images it does not name'}, which is not here",
            expected="a folder of images",
            fix="--data DIR",
        )
    stored, seed = stored_split(bundle), bundle.training.data.seed
    if stored is None:
        if new_images != "ignore":
            option = f"--new-images {new_images}"
            what = f"{option}: {bundle.path} stores no split, so no image is new to it"
            raise UsageError(
                what,
                fix="leave it out; or train and export again, which stores the split",
            )
        folder = open_dataset(root, seed=seed)
        refuse_other_labels(folder, bundle.spec.labels, owner=bundle.path)
        how = "cut anew" if folder.cut else "taken as the folder gives it"
        text = "%s stores no split of its training: that of %s is %s"
        log.warning(text, bundle.path, folder.root, how)
        return folder
    folder = read_folder(root)
    refuse_other_labels(folder, bundle.spec.labels, owner=bundle.path)
    placed = matched(folder, stored, new=new_images, seed=seed)
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
    dataset = bundle_dataset(bundle, data, new_images=new_images)
    return evaluated(dataset, stored_split(bundle), split=split, allow_overlap=allow_overlap)


def stored_split(bundle: Bundle) -> StoredSplit | None:
    """Return the split that the training stored, or None; `DataError` if it is damaged."""
    if FILE not in bundle.files:
        return None
    return unpack((bundle.path / FILE).read_bytes(), source=bundle.path / FILE)


def recorded_root(bundle: Bundle) -> Path | None:
    """Return the folder of the images that the bundle's record names, wherever that is now."""
    root = bundle.training.data.root
    return Path(root) if root else None
