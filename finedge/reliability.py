"""Whether probabilities mean what they say: reliability bins, and the calibration error.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599), eq. 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15  # as in the paper


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose probability lies in one interval; shares in [0, 1].

    Attributes:
        n: how many answers.
        p: the mean of their probabilities; 0 where there are none.
        right: the share that is right; 0 where there are none.
    """

    n: int
    p: float
    right: float


def reliability(
    probabilities: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Sort answers into bins of equal width.

    Args:
        probabilities: the probability of each answer, in [0, 1], float [n].
        right: whether the answer is true, bool [n].
        bins: the number of bins; a value on a border belongs to the lower one.
    """
    index = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights=w, minlength=bins) for w in (probabilities, right))
    means = (np.divide(total, np.maximum(counts, 1)) for total in sums)
    rows = zip(counts.tolist(), *(mean.tolist() for mean in means), strict=True)
    return tuple(ReliabilityBin(n, p, share) for n, p, share in rows)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error: mean |share right - mean p|, weighted by images."""
    total = sum(one.n for one in bins)
    return sum(one.n * abs(one.right - one.p) for one in bins) / max(total, 1)
