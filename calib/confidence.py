"""How sure a bundle may say it is: a temperature and a reject threshold for each variant, fitted on held-out images.

A network trained to the end is surer than it is right. Dividing its scores by one number T before the softmax mends that without
moving a single answer (temperature scaling: Guo et al. 2017, arXiv 1706.04599). The threshold then follows a rule that an operator
can check: it is the highest that gives up at most a share (5 %, `finedge calibrate --give-up`) of the answers that were right. What
that buys is measured, not chosen: `coverage`, the share of images that still get an answer, and `accuracy_accepted`, how many of
those are right. Strangers, pictures of no class at all, take no part in the fit: how many are caught depends on what they are.

Held out is the validation split alone. Never test, where the accuracy is measured; and never train, which the network knows by heart:
a temperature fitted there would make it surer still.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.calib.calibration_set import CalibrationSet
from finedge.data import DataSet, Item, content_digest, drop_unreadable
from finedge.ops import softmax
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.subset import first_balanced

log = logging.getLogger(__name__)

SPLIT = "val"
# Fewer cannot place the threshold: 5 % of 100 images are five of them.
LEAST_IMAGES = 100
MOST_IMAGES = 1000  # the rest of a large split would cost minutes and move T in its third digit
BOUNDS = (0.05, 20.0)  # of T
GIVE_UP = 0.05
BINS = 15  # of the calibration error, as in the paper
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
TOLERANCE = 1e-5  # of log T


@dataclass(frozen=True)
class Fit:
    """One variant's confidence and what it does to `n` held-out images; shares in [0, 1].

    `ece_*` is the expected calibration error with 15 bins; `accuracy` that of all images, `accuracy_accepted` that of the
    `coverage` which is not rejected. `file` is what was run.
    """

    temperature: float
    reject: float
    give_up: float
    n: int
    ece_before: float
    ece_after: float
    coverage: float
    accuracy: float
    accuracy_accepted: float
    file: str = ""
    split: str = SPLIT

    def to_json(self) -> dict[str, Any]:
        """Return the record for the manifest: numbers with six digits, the threshold rounded down so that it rejects no more."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items()}
        return {**rounded, "reject": math.floor(1e6 * self.reject) / 1e6}


def held_out(data: DataSet) -> CalibrationSet | None:
    """Return up to 1000 validation images, evenly over the classes; None, and a warning, where there are fewer than 100.

    Images whose bytes are also in train or test are left out and logged.
    """
    chosen = first_balanced(tuple(data.splits.get(SPLIT, ())), MOST_IMAGES)
    items = drop_unreadable(
        replace(data, splits={**data.splits, SPLIT: chosen}), splits=(SPLIT,)
    ).splits[SPLIT]
    shared = _copies(items, [i for s in ("train", "test") for i in data.splits.get(s, ())])
    if shared:
        log.warning(
            "%d image(s) of split '%s' are also in train or test, first %s: left out of the fit",
            len(shared),
            SPLIT,
            shared[0].path,
        )
    kept = tuple(i for i in items if i not in shared)
    if len(kept) < LEAST_IMAGES:
        text = "no confidence is fitted: %s has %d held-out images (split '%s'), at least %d are needed; nothing will be called unknown"
        log.warning(text, data.root, len(kept), SPLIT, LEAST_IMAGES)
        return None
    return CalibrationSet(kept, tuple(content_digest(i.path) for i in kept))


def fit_confidence(
    bundle: Bundle, sample: CalibrationSet, *, give_up: float = GIVE_UP
) -> dict[str, Fit]:
    """Fit each variant of a bundle in the file that ONNX Runtime runs of it here.

    Of int8 that is model.int8.cpu.onnx; TensorRT, which runs model.int8.onnx, goes by the same numbers.
    """
    scores, files = _scores(bundle, sample)
    labels = np.array([i.label for i in sample.items], np.intp)
    fits = {
        variant: fit(s, labels, give_up=give_up, file=files[variant])
        for variant, s in scores.items()
    }
    for variant, found in fits.items():
        log.info(
            "%s (%s): temperature %.3f, calibration error %.3f -> %.3f on %d held-out images",
            *(variant, found.file, found.temperature, found.ece_before, found.ece_after, found.n),
        )
        log.info(
            "%s: unknown below %.3f; %.1f %% of them are answered, %.1f %% of these rightly",
            *(variant, found.reject, 100 * found.coverage, 100 * found.accuracy_accepted),
        )
    return fits


def fit(
    scores: NDArray[np.floating],
    labels: NDArray[np.intp],
    *,
    give_up: float = GIVE_UP,
    file: str = "",
) -> Fit:
    """Fit a temperature and a threshold to scores [n, classes] of either kind (logits, or log-probabilities) and labels [n]."""
    right = scores.argmax(axis=1) == labels
    temperature = fit_temperature(scores, labels)
    before, after = (_top(scores, t) for t in (1.0, temperature))
    reject = threshold(after, right, give_up=give_up)
    accepted = after >= reject
    return Fit(
        temperature,
        reject,
        give_up,
        len(labels),
        calibration_error(before, right),
        calibration_error(after, right),
        coverage=float(accepted.mean()),
        accuracy=float(right.mean()),
        accuracy_accepted=float(right[accepted].mean()) if accepted.any() else 0.0,
        file=file,
    )


def fit_temperature(scores: NDArray[np.floating], labels: NDArray[np.intp]) -> float:
    """Return T in [0.05, 20] with the least mean -log softmax(scores / T)[label].

    It stays 1 where no answer is wrong: such images bound T from one side only, and the fit would end at the least one allowed.
    """
    if (scores.argmax(axis=1) == labels).all():
        log.warning(
            "every held-out image is classified rightly: nothing tells how sure is too sure, the temperature stays 1"
        )
        return 1.0

    def loss(log_t: float) -> float:
        z = scores.astype(np.float64) / math.exp(log_t)
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]).mean())

    low, high = (math.log(b) for b in BOUNDS)
    found = math.exp(_least(loss, low, high))
    if min(found / BOUNDS[0], BOUNDS[1] / found) < 1.01:
        log.warning(
            "the temperature %.3g is at the end of what is allowed: these scores cannot be trusted as probabilities",
            found,
        )
    return found


def threshold(
    p: NDArray[np.floating], right: NDArray[np.bool_], *, give_up: float = GIVE_UP
) -> float:
    """Return the highest threshold below which at most a share `give_up` (in [0, 1)) of the right answers lie; 0 where no answer is right.

    `p` float [n] is the top probability of each image, `right` bool [n] whether the answer is true.
    """
    of_right = np.sort(p[right])
    # The smallest number is added since 0.02 * 150 is a little less than 3 in floating point.
    return float(of_right[int(give_up * len(of_right) + 1e-9)]) if len(of_right) else 0.0


def calibration_error(
    p: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = BINS
) -> float:
    """Return the expected calibration error: |share right - mean p| over bins of equal width of p, weighted by their images (Guo et al., eq. 3)."""
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=right - p, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def _top(scores: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    top: NDArray[np.floating] = softmax(scores.astype(np.float64) / temperature).max(axis=1)
    return top


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search: the mean loss is convex in 1 / T, so it has one valley in log T as well."""
    left, right = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > TOLERANCE:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN_RATIO * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN_RATIO * (high - low)
            at_right = loss(right)
    return (low + high) / 2


def _scores(
    bundle: Bundle, sample: CalibrationSet
) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, str]]:
    """Run every variant on every image, each image read once; return scores [n, classes] and the file, by variant."""
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    with ExitStack() as stack:
        # The fit goes with the file to other CPUs and to GPUs.
        backend = OnnxRuntimeBackend(SessionOptions(exact=True))
        sessions = {
            v: stack.enter_context(closing(backend.open(bundle, variant=v)))
            for v in bundle.variants()
        }
        for batch in sample.batches(bundle.spec.preprocess):
            for variant, session in sessions.items():
                found[variant].append(session(batch)[bundle.spec.main.name])
        return {v: np.concatenate(parts) for v, parts in found.items()}, {
            v: s.info.file for v, s in sessions.items()
        }


def _copies(items: tuple[Item, ...], others: list[Item]) -> list[Item]:
    """Return the items whose bytes are also those of an other; only files of equal size are read."""
    sizes = {i.path.stat().st_size for i in items}
    digests = {
        content_digest(o.path)
        for o in others
        if o.path.is_file() and o.path.stat().st_size in sizes
    }
    return [i for i in items if content_digest(i.path) in digests]
