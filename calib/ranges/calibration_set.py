"""The images that a calibration sees: a class-balanced, seeded sample of the training split.

An image that the accuracy is measured on is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.data import MAX_UNREADABLE, DataSet, Item, content_digest
from finedge.errors import DataError, UsageError
from finedge.image import read_image
from finedge.preprocess import preprocess_batch
from finedge.progress import progress_bar
from finedge.spec import Preprocess
from finedge.subset import balanced_order

log = logging.getLogger(__name__)

EVALUATED = ("val", "test")
# Of horizontally neighbouring pixels: about 0 for noise, above 0.8 for photographs and drawings.
MIN_CORRELATION = 0.2
LISTED = 10  # shared images or classes that a text names


@dataclass(frozen=True)
class CalibrationSet:
    """Images in running order, and the sha256 of each file.

    INT8 calibration takes training images, confidence calibration validation images.
    """

    items: tuple[Item, ...]
    digests: tuple[str, ...]

    def batches(self, preprocess: Preprocess, *, size: int = 4) -> Iterator[NDArray[np.uint8]]:
        """Yield uint8 [<= size, crop, crop, 3], preprocessed as everywhere else."""
        for start in range(0, len(self.items), size):
            items = self.items[start : start + size]
            frames = (read_image(item.path) for item in items)
            yield preprocess_batch(frames, preprocess, count=len(items))

    def watched_batches(
        self, preprocess: Preprocess, text: str, *, size: int = 4
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the batches; a progress bar with `text` counts the images."""
        with progress_bar(text, len(self.items)) as advance:
            for batch in self.batches(preprocess, size=size):
                yield batch
                advance(len(batch))


def draw_sample(data: DataSet, *, images: int = 256, seed: int = 0) -> CalibrationSet:
    """Draw `images` images of the training split, class by class in turn.

    The same data and seed give the same sample. Files that cannot be read are passed over and
    logged. Where the split has fewer images, all of them are taken.

    Raises:
        UsageError: `images` is not positive.
        DataError: no training images, too many unreadable ones, noise instead of pictures, or an
            image that val or test hold too.

    Examples:
        >>> sample = draw_sample(open_dataset(Path("birds")), images=256)
        >>> table = collect_ranges(model, sample.batches(bundle.spec.preprocess))
    """
    if images < 1:
        raise UsageError(f"--images {images}", expected="at least 1")
    items = readable(balanced_order(data.split("train"), seed=seed), images)
    if len(items) < images:
        log.warning(
            "%s has only %d training images to calibrate with, not %d",
            data.root,
            len(items),
            images,
        )
    _warn_of_empty_classes(data)
    digests = tuple(content_digest(i.path) for i in items)
    refuse_overlap(data, items, digests)
    return CalibrationSet(items, digests)


def _warn_of_empty_classes(data: DataSet) -> None:
    """Warn of classes without training images: the ranges may cut what only they bring."""
    present = {item.label for item in data.split("train")}
    empty = [name for label, name in enumerate(data.labels) if label not in present]
    if empty:
        more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
        text = "%s has no training images of %d of %d classes: %s%s"
        names = ", ".join(empty[:LISTED])
        log.warning(text, data.root, len(empty), len(data.labels), names, more)


def readable(order: list[Item], images: int) -> tuple[Item, ...]:
    """Return the first `images` files that decode."""
    items: list[Item] = []
    noise = 0
    errors: list[DataError] = []
    for item in order:
        if len(items) == images:
            break
        try:
            frame = read_image(item.path)
        except DataError as error:
            errors.append(error)
            continue
        items.append(item)
        noise += is_noise(frame)
    _check_images(len(items), errors, noise)
    return tuple(items)


def _check_images(readable: int, errors: list[DataError], noise: int) -> None:
    """Refuse a sample with too many unreadable files, or with noise for the most part."""
    total = readable + len(errors)
    if len(errors) > max(1, MAX_UNREADABLE * total):
        raise DataError(
            f"{len(errors)} of {total} images cannot be read, first: {errors[0]}",
            expected=f"at most {MAX_UNREADABLE:.0%}",
            fix="repair or delete these files",
        )
    for error in errors:
        log.warning("passed over: %s", error)
    if noise > readable / 2:
        raise DataError(
            f"{noise} of {readable} calibration images are noise or one colour",
            expected="pictures such as the camera will see",
            fix="give --data with real images",
        )


def is_noise(frame: NDArray[np.uint8]) -> bool:
    """Tell whether a picture is noise or of one colour; uint8 [H, W, 3].

    In noise, a pixel says nothing about its neighbour.
    """
    green = frame[..., 1].astype(np.float32)
    left, right = green[:, :-1].ravel() - green.mean(), green[:, 1:].ravel() - green.mean()
    power = float(np.sqrt((left @ left) * (right @ right)))
    return power == 0 or float(left @ right) < MIN_CORRELATION * power


def refuse_overlap(data: DataSet, items: tuple[Item, ...], digests: tuple[str, ...]) -> None:
    """Raise `DataError` if val or test hold the bytes of one of these images too."""
    evaluated = {
        content_digest(i.path): i.path
        for split in EVALUATED
        for i in data.splits.get(split, ())
        if i.path.is_file()
    }
    shared = [(i.path, evaluated[d]) for i, d in zip(items, digests, strict=True) if d in evaluated]
    if shared:
        pairs = "\n    ".join(f"{a} = {b}" for a, b in shared[:LISTED])
        raise DataError(
            f"{len(shared)} calibration images are also in the evaluated splits:\n    {pairs}",
            expected="no shared images",
            fix="remove the copies from one split",
        )
