"""What each variant costs in accuracy: compared with fp32, image by image, on held-out images.

`auto` reads it on every device (`finedge.runtime.variant`). The images are those of
`finedge.calib.held_out.images`: the test split stays untouched, so that its numbers choose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from finedge.measure import mcnemar
from finedge.provenance import AccuracyCost
from finedge.runtime.benchmark.accuracy import paired_interval95

log = logging.getLogger(__name__)

BASE = "fp32"


def accuracy_costs(
    scores: Mapping[str, NDArray[np.floating]], labels: NDArray[np.intp], *, split: str
) -> dict[str, AccuracyCost]:
    """Compare every variant with fp32; empty where fp32 is missing.

    Args:
        scores: [n, classes] by variant, of the same images in the same order; where a variant has
            fewer, it is compared on those.
        labels: the true class of each image, int [n].
        split: the split of the images.
    """
    if BASE not in scores:
        return {}
    answers = {variant: array.argmax(axis=1) for variant, array in scores.items()}
    costs = {
        variant: _cost(
            answers[BASE][: len(answer)], answer, labels=labels[: len(answer)], split=split
        )
        for variant, answer in answers.items()
    }
    for variant, cost in costs.items():
        _log_cost(variant, cost)
    return costs


def _cost(
    base: NDArray[np.intp], answer: NDArray[np.intp], *, labels: NDArray[np.intp], split: str
) -> AccuracyCost:
    n, right, base_right = len(labels), answer == labels, base == labels
    gained, lost = int((right & ~base_right).sum()), int((base_right & ~right).sum())
    return AccuracyCost(
        n=n,
        top1=round(float(right.mean()), 6),
        top1_change=round((gained - lost) / n, 6),
        top1_change95=paired_interval95(gained, lost, n=n),
        mcnemar_p=mcnemar(lost, gained),
        flips=int((answer != base).sum()),
        split=split,
    )


def _log_cost(variant: str, cost: AccuracyCost) -> None:
    if variant != BASE:
        log.info(
            "%s against %s on %d images of %s: top-1 %+.1f points (McNemar p = %.2g), %d flips",
            variant,
            BASE,
            cost.n,
            cost.split,
            100 * cost.top1_change,
            cost.mcnemar_p,
            cost.flips,
        )
