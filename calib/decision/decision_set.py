"""The decision set: training images that decide between INT8 files of the same float model.

They are other images than those of the calibration, and never of val or test: what is decided on an
image cannot be measured on it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.calib.options import MIN_IMAGES
from finedge.calib.ranges.calibration_set import (
    CalibrationSet,
    draw_sample,
    readable,
    refuse_overlap,
)
from finedge.data import DataSet, content_digest
from finedge.spec import Preprocess
from finedge.subset import balanced_order

log = logging.getLogger(__name__)

# The largest share of a small training split that may go into the decision set.
MAX_SHARE = 1 / 3


@dataclass(frozen=True)
class Samples:
    """The images of a calibration: those that give the ranges, and those that decide.

    Attributes:
        calibration: training images, balanced over the classes.
        decision: other training images; None where none were asked for, or there are too few.
        seed: it chose the images.
    """

    calibration: CalibrationSet
    decision: CalibrationSet | None
    seed: int


def draw_samples(
    data: DataSet,
    *,
    images: int = 256,
    curve_images: int = 0,
    decision_images: int = 256,
    seed: int = 0,
) -> Samples:
    """Draw both sets from the training split, balanced over the classes and disjoint by content.

    Where the split has fewer images than both together, at most a third of it decides. Where that
    third has fewer than 32 images, there is no decision set, and all images calibrate.

    Args:
        data: the data set.
        images: how many calibrate.
        curve_images: how many calibrate for the end of the curve, where the split has so many.
        decision_images: how many decide, at least 32; 0 for none.
        seed: chooses the images.

    Raises:
        UsageError, DataError: as `draw_sample`.
    """
    total = len(data.splits.get("train", ()))
    decision_images = min(decision_images, max(total - images, int(total * MAX_SHARE)))
    if decision_images < MIN_IMAGES:
        return Samples(draw_sample(data, images=images, seed=seed), None, seed)
    used = min(max(images, curve_images), total - decision_images)
    calibration = draw_sample(data, images=used, seed=seed)
    decision = draw_decision_set(data, calibration, images=decision_images, seed=seed)
    return Samples(calibration, decision, seed)


def draw_decision_set(
    data: DataSet, calibration: CalibrationSet, *, images: int, seed: int
) -> CalibrationSet | None:
    """Draw at most `images` training images that `calibration` does not hold; None below 32."""
    used, seen = set(calibration.items), set(calibration.digests)
    rest = [i for i in balanced_order(data.split("train"), seed=seed) if i not in used]
    pairs = [(i, content_digest(i.path)) for i in readable(rest, images)]
    kept = [(item, digest) for item, digest in pairs if digest not in seen]
    if len(kept) < MIN_IMAGES:
        return None
    items, digests = zip(*kept, strict=True)
    refuse_overlap(data, items, digests)
    return CalibrationSet(items, digests)


def too_few(method: str) -> str:
    """Return, and log, the reason why nothing is decided and `method` is used."""
    reason = f"too few training images to decide on (at least {MIN_IMAGES} more): {method} is used"
    log.warning("%s", reason)
    return reason


@dataclass(frozen=True)
class DecisionImages:
    """A decision set in memory, ready for a model: 150 kB an image at 224 pixels.

    Attributes:
        frames: uint8 [n, crop, crop, 3].
        labels: the true classes, intp [n].
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.intp]


def load_decision_images(sample: CalibrationSet, preprocess: Preprocess) -> DecisionImages:
    """Read and preprocess the images once; a search runs them many times."""
    frames = np.concatenate(list(sample.watched_batches(preprocess, "reading decision images")))
    return DecisionImages(frames, np.array([i.label for i in sample.items], np.intp))
