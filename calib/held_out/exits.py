"""The thresholds of early exits, for each variant, from its own scores on held-out images.

A right answer is lost where the whole model names the true class, and the exit at which the image
leaves does not. Answers that an exit mends are counted beside it, and pay for nothing.

Of `n` held-out images, none lost still allows a true loss of about 3 / n (95 %, one-sided, Clopper
and Pearson): 1.0 % for 296. No threshold can promise less, so this is granted, and no more: the
upper bound of the images lost must not pass `loss` + that of none lost. So a small set allows fewer
lost images than `loss` of its size, and `loss` 0 allows none. With 296 images `loss` 0.01 allows
one image, not two.

The threshold itself is that of the least sure image that may leave, not the gap below it. It was
chosen on the images that it is measured on, so new images lose about one of n + 1 more (conformal
risk control, Angelopoulos et al. 2022, arXiv 2208.02814).

An exit at which fewer than 30 held-out images would leave stays closed: of so few, none lost says
little about the next one that leaves (of 30 the upper bound is 10 %).

The images are those of `finedge.calib.held_out.images`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.calib.held_out.confidence import fit_temperature
from finedge.calib.held_out.images import FLOAT, SPLIT, HeldOutScores
from finedge.measure import upper95
from finedge.ops import softmax

log = logging.getLogger(__name__)

MIN_LEAVING = 30  # held-out images


@dataclass(frozen=True)
class ExitFit:
    """One exit of a variant, and its effect on the held-out images; shares of all of them.

    Attributes:
        output: the local output that decides.
        temperature: divides its scores before the softmax.
        threshold: an image leaves from this top probability on; None: no image leaves.
        loss: the share of images whose right answer may be lost, as it was asked for.
        n: the number of held-out images.
        share: the share that leaves here.
        lost: right answers that are lost here.
        gained: wrong answers that the exit mends.
        lost_upper95: the 95 % upper bound of the share lost here and before.
        top1: the share of the images that leave here whose answer is right; None without any.
        split: the split of the images.
    """

    output: str
    temperature: float
    threshold: float | None
    loss: float
    n: int
    share: float
    lost: int
    gained: int
    lost_upper95: float
    top1: float | None
    split: str = SPLIT


def fit_exits(
    held: HeldOutScores, outputs: Sequence[str], *, loss: float
) -> dict[str, tuple[ExitFit, ...]]:
    """Fit the exits of each variant, `REDUCED` too; nothing without exits.

    fp16 has those of fp32 where it was not run on all images (`variant_scores`).

    Args:
        held: what every variant answers to the held-out images, with the local outputs.
        outputs: the local outputs of the exits, in running order.
        loss: the share of images whose right answer may be lost, in [0, 1).
    """
    if not outputs:
        return {}
    run = {name: FLOAT if held.same_as_float(name) else name for name in held.scores}
    fits = {
        name: fit_chain(
            [held.local[source][output] for output in outputs],
            held.labels,
            whole=held.scores[source],
            outputs=outputs,
            loss=loss,
        )
        for name, source in run.items()
    }
    for name, chain in fits.items():
        _log_fits(name, chain)
    return fits


def fit_chain(
    heads: Sequence[NDArray[np.float32]],
    labels: NDArray[np.intp],
    *,
    whole: NDArray[np.float32],
    outputs: Sequence[str],
    loss: float,
) -> tuple[ExitFit, ...]:
    """Fit exits one after another: each sees the images that the exits before it left.

    All of them together may lose what `allowed_losses` says. The first of k exits may use a k-th of
    it, the second what is left of two k-ths, and so on.

    Args:
        heads: the scores of each exit, [n, classes].
        labels: the true class of each image, int [n].
        whole: the scores of the whole model, [n, classes].
        outputs: the names of the exits.
        loss: the share of images whose right answer may be lost.
    """
    budget, lost = allowed_losses(loss, len(labels)), 0
    right, present = whole.argmax(axis=1) == labels, np.ones(len(labels), np.bool_)
    fits = []
    for k, (scores, output) in enumerate(zip(heads, outputs, strict=True)):
        temperature = fit_temperature(scores, labels)
        top = softmax(scores.astype(np.float64) / temperature).max(axis=1)
        exit_right = scores.argmax(axis=1) == labels
        allowed = budget * (k + 1) // len(heads) - lost
        threshold = exit_threshold(top[present], (right & ~exit_right)[present], allowed=allowed)
        leaves = present & (top >= (math.inf if threshold is None else threshold))
        lost_here = int((leaves & right & ~exit_right).sum())
        lost, present = lost + lost_here, present & ~leaves
        fit = ExitFit(
            output,
            temperature,
            threshold,
            loss,
            len(labels),
            share=float(leaves.mean()),
            lost=lost_here,
            gained=int((leaves & ~right & exit_right).sum()),
            lost_upper95=upper95(lost, len(labels)),
            top1=float(exit_right[leaves].mean()) if leaves.any() else None,
        )
        fits.append(fit)
    return tuple(fits)


def allowed_losses(loss: float, n: int) -> int:
    """Return how many of `n` held-out images may lose their right answer; see the module."""
    limit = loss + upper95(0, n)
    allowed = 0
    while allowed < n and upper95(allowed + 1, n) <= limit:
        allowed += 1
    return allowed


def exit_threshold(
    probabilities: NDArray[np.floating], lost: NDArray[np.bool_], *, allowed: int
) -> float | None:
    """Return the lowest threshold at which at most `allowed` images are lost.

    It is rounded down to a millionth, as the runtime computes in float32.

    Args:
        probabilities: the top probability of each image at the exit, [n].
        lost: whether the image would lose its right answer there, bool [n].
        allowed: how many may.

    Returns:
        the probability of the least sure image that may leave; None where fewer than 30 may.
    """
    of_lost = np.sort(probabilities[lost])[::-1]
    bound = of_lost[allowed] if allowed < len(of_lost) else -1.0
    above = probabilities[probabilities > bound]
    if len(above) < MIN_LEAVING:
        return None
    lowest = math.floor(1e6 * float(above.min())) / 1e6
    # Rounded down it may not reach the lost image below it; float32 does not tell them apart then.
    return lowest if lowest > bound else None


def _log_fits(variant: str, fits: Sequence[ExitFit]) -> None:
    for fit in fits:
        log.info(
            "%s: %.1f %% of %d held-out images leave at %s (from %s on); %d right answer(s) lost, "
            "%d gained; with 95 %% confidence at most %.1f %% are lost up to here",
            variant,
            100 * fit.share,
            fit.n,
            fit.output,
            "never" if fit.threshold is None else f"{fit.threshold:.3f}",
            fit.lost,
            fit.gained,
            100 * fit.lost_upper95,
        )
