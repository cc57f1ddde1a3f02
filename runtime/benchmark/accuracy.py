"""Two classifiers compared image by image on the same labelled images."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.data import Item
from finedge.measure import mcnemar
from finedge.reliability import calibration_error, reliability
from finedge.runtime.evaluate.predict import Answers


@dataclass(frozen=True)
class Change:
    """How a second classifier's top-1 differs from a first's on the same images.

    Attributes:
        top1_change: the difference of the top-1 shares, -1 to 1.
        top1_change95: its 95 % interval.
        mcnemar_p: the p-value that both are equally good.
        flips: images that got another answer.
        gained: images that became right.
        lost: images that became wrong.
    """

    top1_change: float
    top1_change95: tuple[float, float]
    mcnemar_p: float
    flips: int
    gained: int
    lost: int


def choose(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """Return all items, or `limit` of them by a fixed seed."""
    if limit is None or limit >= len(items):
        return tuple(items)
    return tuple(random.Random(0).sample(list(items), limit))


def change(first: Answers, second: Answers) -> Change:
    """Compare the answers of two classifiers to the same images in the same order."""
    gained = int((second.correct & ~first.correct).sum())
    lost = int((first.correct & ~second.correct).sum())
    flips = int((first.ranked[:, 0] != second.ranked[:, 0]).sum())
    n = len(first.items)
    interval = paired_interval95(gained, lost, n=n)
    difference = round((gained - lost) / n, 6)
    return Change(difference, interval, mcnemar(lost, gained), flips, gained, lost)


def paired_interval95(gained: int, lost: int, *, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares measured on the same `n` images.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions":
    Wald's interval after half an image is added to each of the four cells.
    """
    total, up, down = n + 2, gained + 0.5, lost + 0.5
    middle = (up - down) / total
    half = 1.959963984540054 * math.sqrt(up + down - (up - down) ** 2 / total) / total
    return round(max(-1.0, middle - half), 6), round(min(1.0, middle + half), 6)


def reliability_record(answers: Answers) -> dict[str, Any]:
    """Return the reliability of a variant's answers, with and without its temperature.

    `ece` is the expected calibration error of the probabilities that users see, `ece_uncalibrated`
    that at temperature 1. `bins` are those of the first.
    """
    first = answers.probabilities[:, 0]
    bins = reliability(first, answers.correct)
    before = reliability(answers.uncalibrated, answers.correct)
    return {
        "ece": round(calibration_error(bins), 6),
        "ece_uncalibrated": round(calibration_error(before), 6),
        "bins": [[one.n, round(one.p, 6), round(one.right, 6)] for one in bins],
    }


def per_class(labels: Sequence[str], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Return each class that has images: label, n, top-1 share by variant, and what INT8 changes.

    `change`, `flips` and `mcnemar_p` compare int8 with fp32 (see `Change`); they are None where one
    of the two is missing.
    """
    truth = next(iter(answers.values())).labels
    rows = []
    for index in sorted(set(truth.tolist())):
        mask = truth == index
        top1 = {variant: round(float(a.correct[mask].mean()), 6) for variant, a in answers.items()}
        row = {"label": labels[index], "n": int(mask.sum()), "top1": top1}
        rows.append({**row, **_class_change(answers, mask)})
    return rows


def _class_change(answers: Mapping[str, Answers], mask: NDArray[np.bool_]) -> dict[str, Any]:
    if not {"fp32", "int8"} <= set(answers):
        return {"change": None, "flips": None, "mcnemar_p": None}
    result = change(*(answers[variant].of(mask) for variant in ("fp32", "int8")))
    return {
        "change": result.top1_change,
        "flips": result.flips,
        "mcnemar_p": round(result.mcnemar_p, 6),
    }
