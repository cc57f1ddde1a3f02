"""From which probability on a group of classes is named, for each variant.

A group is named only where no class is sure. There are too few such images to fit on: of 296 photos
of groceries 30, of 283 of birds 31. So all held-out images count, and the easy ones must not pay
for the hard ones: the rule looks at the least sure names alone. Of the 100 images just above a
threshold, at least 95 % must be in their group.

How many may be wrong is the rule of the early exits (`finedge.calib.held_out.exits`). None wrong of
`k` images still allows a true share of about 3 / k (95 %, one-sided, Clopper and Pearson). So that
is granted, and no more: the upper bound of the wrong ones must not pass 5 % + that of none wrong.
Of 100 three may be wrong. The record has the 95 % Wilson interval of all names that are right.

The threshold is the lowest that meets the rule, and it is chosen on the images that it is measured
on. The deepest groups come first; the groups above them see the images that are left. A depth at
which fewer than 30 images get a name stays closed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.calib.held_out.confidence import ConfidenceFit
from finedge.calib.held_out.images import FLOAT, SPLIT, HeldOutScores
from finedge.label_tree import LabelTree
from finedge.measure import upper95, wilson95
from finedge.ops import softmax

log = logging.getLogger(__name__)

MIN_NAMED = 30  # held-out images
WINDOW = 100  # the least sure of them
MAX_WRONG = 0.05


@dataclass(frozen=True)
class CoarserFit:
    """The groups of one depth of a variant, and what they say of the held-out images.

    Attributes:
        depth: of the groups.
        threshold: a group is named from this probability on; None: none is.
        max_wrong: the largest share of wrong names.
        asked: the images for which no deeper group was named.
        named: those whose group is named here.
        right: those of them that are in the group.
        wilson95: the 95 % interval of the share that is right.
        unknown_named: those named whose class is unknown.
        unknown_right: those of them that are in the group.
        split: the split of the images.
    """

    depth: int
    threshold: float | None
    max_wrong: float
    asked: int
    named: int
    right: int
    wilson95: tuple[float, float]
    unknown_named: int
    unknown_right: int
    split: str = SPLIT


def fit_label_tree(
    held: HeldOutScores, tree: LabelTree, *, confidence: Mapping[str, ConfidenceFit]
) -> dict[str, tuple[CoarserFit, ...]]:
    """Fit the thresholds of each variant of a bundle.

    fp16 has those of fp32 where it was not run on all images (`variant_scores`).

    Args:
        held: what every variant answers to the held-out images.
        tree: the groups.
        confidence: the temperature and the threshold of each variant.
    """
    fits = {}
    for name in held.variants:
        source = FLOAT if held.same_as_float(name) else name
        fitted = confidence[name]
        p = softmax(held.scores[source].astype(np.float64) / fitted.temperature)
        fits[name] = fit_depths(p, held.labels, tree=tree, reject=fitted.reject)
        _log_fits(name, fits[name])
    return fits


def fit_depths(
    p: NDArray[np.floating], labels: NDArray[np.intp], *, tree: LabelTree, reject: float
) -> tuple[CoarserFit, ...]:
    """Fit one depth after another, the deepest first.

    Args:
        p: probabilities, float [n, classes].
        labels: the true class of each image, int [n].
        tree: the groups.
        reject: the class of an image is unknown below this top probability.
    """
    left, unknown, fits = np.ones(len(p), np.bool_), p.max(axis=1) < reject, []
    for depth in range(tree.depth, 0, -1):
        group, sums = tree.best(p, depth=depth)
        right = tree.membership[group, labels]
        threshold = lowest_threshold(sums[left], right[left])
        named = left & (sums >= (math.inf if threshold is None else threshold))
        count, correct = int(named.sum()), int((named & right).sum())
        low, high = wilson95(correct, count)
        fit = CoarserFit(
            depth,
            threshold,
            MAX_WRONG,
            asked=int(left.sum()),
            named=count,
            right=correct,
            wilson95=(round(low, 6), round(high, 6)),
            unknown_named=int((named & unknown).sum()),
            unknown_right=int((named & unknown & right).sum()),
        )
        fits.append(fit)
        left &= ~named
    return tuple(fits)


def lowest_threshold(probabilities: NDArray[np.floating], right: NDArray[np.bool_]) -> float | None:
    """Return the lowest threshold at which the least sure names are right as often as they must.

    It is rounded down to a millionth, as the runtime computes in float32.

    Args:
        probabilities: of the best group of each image, [n].
        right: whether the image is in it, bool [n].

    Returns:
        the probability of the least sure image that is named; None where fewer than 30 may be.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered, wrong = probabilities[order], np.cumsum(np.r_[0, ~right[order]])
    for k in range(len(ordered), MIN_NAMED - 1, -1):
        if k < len(ordered) and ordered[k] == ordered[k - 1]:
            continue  # equal probabilities are named together
        lowest = math.floor(1e6 * float(ordered[k - 1])) / 1e6
        if k < len(ordered) and ordered[k] >= lowest:
            continue  # float32 does not tell them apart
        window = min(k, WINDOW)
        if meets_rule(int(wrong[k] - wrong[k - window]), window):
            return lowest
    return None


def meets_rule(wrong: int, named: int) -> bool:
    """Tell whether `wrong` of `named` names are few enough."""
    limit = MAX_WRONG + upper95(0, named)
    return wrong / named <= limit and upper95(wrong, named) <= limit


def _log_fits(variant: str, fits: tuple[CoarserFit, ...]) -> None:
    for fit in fits:
        log.info(
            "%s: groups of depth %d are named from %s on: of %d images %d are named, "
            "%d rightly; of the unknown ones %d, %d rightly",
            variant,
            fit.depth,
            "never" if fit.threshold is None else f"{fit.threshold:.3f}",
            fit.asked,
            fit.named,
            fit.right,
            fit.unknown_named,
            fit.unknown_right,
        )
