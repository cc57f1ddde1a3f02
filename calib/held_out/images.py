"""The held-out images of a confidence calibration, and the scores of each variant on them.

They are of the validation split alone. Test is never used: the accuracy is measured there. Train is
never used: the network knows it by heart, so a temperature fitted there would make it more sure.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, Bundle
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.data import DataSet, Item, content_digest, drop_unreadable
from finedge.provenance import REDUCED
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.subset import first_balanced

log = logging.getLogger(__name__)

SPLIT = "val"
NO_VAL = ". The recipe has val = 0, so all of train was trained on: train with val = 0.1 for a fit"
# Fewer cannot place the threshold: 5 % of 100 images are five of them.
MIN_IMAGES = 100
MAX_IMAGES = 1000  # the rest of a large split would cost minutes and move T in its third digit


def held_out(data: DataSet) -> CalibrationSet | None:
    """Return up to 1000 validation images, evenly over the classes.

    None, and a warning, where there are fewer than 100. Images whose bytes are also in train or
    test are left out and logged.
    """
    candidates = first_balanced(tuple(data.splits.get(SPLIT, ())), MAX_IMAGES)
    validation = replace(data, splits={**data.splits, SPLIT: candidates})
    items = drop_unreadable(validation, splits=(SPLIT,)).splits[SPLIT]
    shared = _copies(items, [i for s in ("train", "test") for i in data.splits.get(s, ())])
    if shared:
        log.warning(
            "%d image(s) of split '%s' are also in train or test, first %s: left out of the fit",
            len(shared),
            SPLIT,
            shared[0].path,
        )
    kept = tuple(i for i in items if i not in shared)
    if len(kept) < MIN_IMAGES:
        log.warning(
            "no confidence is fitted: %s has %d held-out images (split '%s'), at least %d are "
            "needed; nothing will be called unknown%s",
            data.root,
            len(kept),
            SPLIT,
            MIN_IMAGES,
            NO_VAL if (data.cut or {}).get("val") == 0 else "",
        )
        return None
    return CalibrationSet(kept, tuple(content_digest(i.path) for i in kept))


@dataclass(frozen=True)
class HeldOutScores:
    """What every variant answers to the held-out images.

    Attributes:
        scores: [n, classes] by variant. `REDUCED` is int8 as CPUs whose products saturate compute
            it: with weights that are cut at load.
        files: the file that was run, by the same names.
        labels: the true class of each image, int [n].
    """

    scores: Mapping[str, NDArray[np.float32]]
    files: Mapping[str, str]
    labels: NDArray[np.intp]

    @property
    def variants(self) -> tuple[str, ...]:
        """The names that are variants of the bundle."""
        return tuple(name for name in self.scores if name != REDUCED)


def variant_scores(bundle: Bundle, sample: CalibrationSet) -> HeldOutScores:
    """Run every variant on every image; each image is read once."""
    parts: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    with ExitStack() as stack:
        # The fit goes with the file to other CPUs and to GPUs, so INT8 products are exact.
        backend = OnnxRuntimeBackend(SessionOptions(exact=True))
        sessions = {
            variant: stack.enter_context(closing(backend.open(bundle, variant=variant)))
            for variant in bundle.variants()
        }
        if CPU_FILE in bundle.files:
            sessions[REDUCED] = stack.enter_context(closing(backend.open_reduced(bundle)))
        for batch in sample.watched_batches(bundle.spec.preprocess, "fitting confidence"):
            for variant, session in sessions.items():
                parts[variant].append(session(batch)[bundle.spec.main.name])
        files = {variant: session.info.file for variant, session in sessions.items()}
    labels = np.array([item.label for item in sample.items], np.intp)
    return HeldOutScores({name: np.concatenate(p) for name, p in parts.items()}, files, labels)


def _copies(items: tuple[Item, ...], others: list[Item]) -> list[Item]:
    """Return the items whose bytes are also those of another; only files of equal size are read."""
    sizes = {i.path.stat().st_size for i in items}
    digests = {
        content_digest(o.path)
        for o in others
        if o.path.is_file() and o.path.stat().st_size in sizes
    }
    return [i for i in items if content_digest(i.path) in digests]
