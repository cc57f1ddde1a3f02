"""Which images calibrate: a class-balanced, seeded sample of the training split, proven not to be what the accuracy is measured on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.data import MAX_UNREADABLE, DataSet, Item, content_digest
from finedge.errors import DataError, UsageError
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Preprocess
from finedge.subset import balanced_order

log = logging.getLogger(__name__)

EVALUATED = ("val", "test")
# Correlation of horizontally neighbouring pixels: about 0 for noise, above 0.8 for photographs and drawings.
LEAST_CORRELATION = 0.2


@dataclass(frozen=True)
class CalibrationSet:
    """The chosen images, in running order, and the sha256 of each file."""

    items: tuple[Item, ...]
    digests: tuple[str, ...]

    def batches(self, how: Preprocess, *, size: int = 4) -> Iterator[NDArray[np.uint8]]:
        """Yield uint8 [<= size, crop, crop, 3], preprocessed as everywhere else."""
        for start in range(0, len(self.items), size):
            yield np.stack(
                [preprocess(read_image(i.path), how) for i in self.items[start : start + size]]
            )


def draw_sample(data: DataSet, *, images: int = 256, seed: int = 0) -> CalibrationSet:
    """Draw `images` images of the training split, class by class in turn; the same data and seed give the same sample.

    Files that cannot be read are passed over and logged. Fewer images than asked are taken where the split has no more.

    Raises:
        UsageError: `images` is not positive.
        DataError: no training images, too many unreadable ones, noise instead of pictures, or an image that val or test also hold.
    """
    if images < 1:
        raise UsageError(f"--images {images}", expected="at least 1")
    items = _readable(balanced_order(data.split("train"), seed=seed), images)
    if len(items) < images:
        log.warning(
            "%s has only %d training images to calibrate with, not %d",
            data.root,
            len(items),
            images,
        )
    digests = tuple(content_digest(i.path) for i in items)
    _refuse_overlap(data, items, digests)
    return CalibrationSet(items, digests)


def _readable(order: list[Item], images: int) -> tuple[Item, ...]:
    """Return the first `images` files that decode."""
    found: list[Item] = []
    noise = 0
    bad: list[DataError] = []
    for item in order:
        if len(found) == images:
            break
        try:
            frame = read_image(item.path)
        except DataError as error:
            bad.append(error)
            continue
        found.append(item)
        noise += is_noise(frame)
    _check(len(found), bad, noise)
    return tuple(found)


def _check(found: int, bad: list[DataError], noise: int) -> None:
    if len(bad) > max(1, MAX_UNREADABLE * (found + len(bad))):
        raise DataError(
            f"{len(bad)} of {found + len(bad)} images cannot be read, first: {bad[0]}",
            expected=f"at most {MAX_UNREADABLE:.0%}",
            fix="repair or delete these files",
        )
    for error in bad:
        log.warning("passed over: %s", error)
    if noise > found / 2:
        raise DataError(
            f"{noise} of {found} calibration images are noise or one colour",
            expected="pictures such as the camera will see",
            fix="give --data with real images",
        )


def is_noise(frame: NDArray[np.uint8]) -> bool:
    """Tell whether neighbouring pixels of uint8 [H, W, 3] say nothing about each other (or never differ at all)."""
    green = frame[..., 1].astype(np.float32)
    left, right = green[:, :-1].ravel() - green.mean(), green[:, 1:].ravel() - green.mean()
    power = float(np.sqrt((left @ left) * (right @ right)))
    return power == 0 or float(left @ right) < LEAST_CORRELATION * power


def _refuse_overlap(data: DataSet, items: tuple[Item, ...], digests: tuple[str, ...]) -> None:
    evaluated = {
        content_digest(i.path): i.path
        for split in EVALUATED
        for i in data.splits.get(split, ())
        if i.path.is_file()
    }
    shared = [(i.path, evaluated[d]) for i, d in zip(items, digests, strict=True) if d in evaluated]
    if shared:
        pairs = "\n    ".join(f"{a} = {b}" for a, b in shared[:10])
        raise DataError(
            f"{len(shared)} calibration images are also in the evaluated splits:\n    {pairs}",
            expected="no shared images",
            fix="remove the copies from one split",
        )
