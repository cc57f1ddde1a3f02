"""The labelled images of a bundle: the split that its training stored, found by content."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from finedge.bundle import Bundle
from finedge.data import (
    DataSet,
    EvaluationSplit,
    NewImages,
    StoredSplit,
    log_dataset,
    log_match,
    match_split,
    read_folder,
    select_images,
    with_labels,
)
from finedge.data.cut import with_cuts
from finedge.data.digest import digests
from finedge.data.stored_split import FILE, unpack
from finedge.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitOptions:
    """Which labelled images are measured.

    Attributes:
        data: the folder of images; default: the one that the training recorded.
        split: train, val or test.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: measure also images that were trained on, or may have been; the result
            counts them.
    """

    data: Path | None = None
    split: str = "test"
    new_images: NewImages = "ignore"
    allow_overlap: bool = False


def bundle_dataset(
    bundle: Bundle,
    data: Path | None = None,
    *,
    new_images: NewImages = "ignore",
    whole: bool = False,
) -> DataSet:
    """Open a data set for a bundle: `data`, or the images its training recorded; splits as stored.

    With `whole` another data set that has no splits is not cut: see `finedge.data.match`.

    Raises:
        UsageError: neither folder is there, or `new_images` for a bundle that stores no split.
        DataError: it has labels that the bundle does not know.
    """
    stored = stored_split(bundle)
    return _dataset(bundle, data, stored=stored, new_images=new_images, whole=whole)


def evaluated_images(bundle: Bundle, options: SplitOptions) -> EvaluationSplit:
    """Return the images of a split that a bundle is measured on, and the record of their origin.

    Raises:
        UsageError: there is no data.
        DataError: see `finedge.data.evaluation`.
    """
    stored, split = stored_split(bundle), options.split
    dataset = _dataset(
        bundle, options.data, stored=stored, new_images=options.new_images, whole=True
    )
    images = select_images(dataset, stored, split=split, allow_overlap=options.allow_overlap)
    calibrated = _count_calibrated(bundle, images, split)
    return replace(images, record={**images.record, "calibrated": calibrated})


def stored_split(bundle: Bundle) -> StoredSplit | None:
    """Return the split that the training stored, or None; `DataError` if it is damaged."""
    if FILE not in bundle.files:
        return None
    return unpack((bundle.path / FILE).read_bytes(), source=bundle.path / FILE)


def recorded_root(bundle: Bundle) -> Path | None:
    """Return the folder of the images that the bundle's record names; it may be gone by now."""
    root = bundle.training.data.root
    return Path(root) if root else None


def _dataset(
    bundle: Bundle,
    data: Path | None,
    *,
    stored: StoredSplit | None,
    new_images: NewImages,
    whole: bool,
) -> DataSet:
    root, seed = _root(bundle, data), bundle.training.data.seed
    if stored is None:
        _refuse_new_images(bundle, new_images)
    folder = with_labels(read_folder(root), bundle.spec.labels, owner=bundle.path)
    if stored is None:
        return _as_the_folder_is(bundle, folder, seed)
    dataset = match_split(folder, stored, new=new_images, seed=seed, whole=whole)
    log_dataset(dataset)
    log_match(dataset)
    return dataset


def _root(bundle: Bundle, data: Path | None) -> Path:
    root = data or recorded_root(bundle)
    if root is None or (data is None and not root.is_dir()):
        raise UsageError(
            f"{bundle.path} was trained on {root or 'images it does not name'}, "
            "which this machine does not have",
            expected="a folder of images",
            fix="--data DIR",
        )
    return root


def _refuse_new_images(bundle: Bundle, new_images: NewImages) -> None:
    if new_images != "ignore":
        raise UsageError(
            f"--new-images {new_images}: {bundle.path} stores no split, so no image is new to it",
            fix="leave it out; or train and export again, which stores the split",
        )


def _as_the_folder_is(bundle: Bundle, folder: DataSet, seed: int) -> DataSet:
    """Return a folder's own splits; those that it lacks are cut from its images."""
    dataset = with_cuts(folder, seed=seed)
    log_dataset(dataset)
    origin = "cut anew" if dataset.cut else "taken as the folder gives it"
    text = "%s stores no split of its training: that of %s is %s"
    log.warning(text, bundle.path, dataset.root, origin)
    return dataset


def _count_calibrated(bundle: Bundle, images: EvaluationSplit, split: str) -> int:
    """Count the images that gave the INT8 ranges; warn of them outside of train."""
    calibration = frozenset(bundle.calibration.images_sha256)
    sha256 = digests(item.path for item in images.items) if calibration else {}
    count = sum(sha256.get(item.path) in calibration for item in images.items)
    if count and split != "train":
        text = (
            "%d image(s) of split '%s' calibrated the INT8 variants: "
            "their accuracy may be a little too good"
        )
        log.warning(text, count, split)
    return count
