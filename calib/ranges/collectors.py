"""Collectors: each takes the statistics of one tensor, and returns the range to keep.

All of them cut to [max(low, -a), min(high, a)] with a limit a <= the largest |x|. The 256 levels of
8 bits then span that range. So a tensor after a ReLU has all levels on one side of 0, and another
one about half of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from finedge.calib.ranges.calibration_table import Range
from finedge.calib.ranges.histogram import TensorStatistics
from finedge.errors import UsageError, nearest

Collector = Callable[[TensorStatistics], Range]

LEVELS = 256  # of unsigned 8 bits
PERCENT = 99.99
LEAST_LIMIT = 1 / 8  # of the largest |x|: entropy and MSE look no further down
LINEAR_BINS = 2048  # of the entropy method, as in TensorRT
CANDIDATES = 128  # limits that entropy and MSE try: steps of 0.7 % of the largest |x|


def keep_all(statistics: TensorStatistics) -> Range:
    """Return [low, high]: nothing is cut off."""
    return Range(statistics.low, statistics.high)


def cut_percentile(statistics: TensorStatistics, *, percent: float = PERCENT) -> Range:
    """Cut off the largest magnitudes: `percent` % of all |x| are at most the limit.

    The limit is the upper edge of a bin: at most 1/1024 above the percentile.
    """
    within = np.cumsum(statistics.counts)
    index = int(np.searchsorted(within, within[-1] * percent / 100))
    return clipped(statistics, float(statistics.edges()[index + 1]))


def least_divergence(statistics: TensorStatistics) -> Range:
    """Return the range whose 8-bit histogram is closest to the float one by KL divergence.

    This is the search of TensorRT (S. Migacz, "8-bit inference with TensorRT", GTC 2017). |x| has
    2048 linear bins. For each limit, what is above it is added to the last bin (P), and the bins
    below are merged into the levels of 8 bits, 256 or for a tensor with both signs 128 (Q).

    The bin of 0 gets the count of its neighbour: 0 is exact in every range, and half of all values
    after a ReLU would hide the rest.
    """
    amax = statistics.amax
    if amax == 0:
        return keep_all(statistics)
    counts = linear_counts(statistics, LINEAR_BINS)
    counts[0] = counts[1]
    levels = LEVELS if _one_sided(statistics) else LEVELS // 2
    smallest = max(levels, int(LINEAR_BINS * LEAST_LIMIT))
    ends = np.unique(np.linspace(smallest, LINEAR_BINS, CANDIDATES).round().astype(int))
    divergences = [divergence(counts, end, levels=levels) for end in ends]
    best = int(ends[len(ends) - 1 - int(np.argmin(divergences[::-1]))])
    return clipped(statistics, amax * best / LINEAR_BINS)


def divergence(counts: NDArray[np.float64], end: int, *, levels: int) -> float:
    """Return KL(P || Q) in nats for a limit after `end` linear bins (see `least_divergence`)."""
    inside = counts[:end]
    p = inside.copy()
    p[-1] += counts[end:].sum()
    level = np.arange(end) * levels // end
    filled = inside > 0
    sums = np.bincount(level, weights=inside, minlength=levels)
    sizes = np.bincount(level, weights=filled, minlength=levels)
    q = np.where(filled, (sums / np.maximum(sizes, 1))[level], 0.0)
    p, q = p / max(p.sum(), 1e-300), q / max(q.sum(), 1e-300)
    used = p > 0
    # Only the last bin can have P without Q; the floor makes that limit a bad one, not an error.
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


def least_squares(statistics: TensorStatistics) -> Range:
    """Return the range that minimises the mean squared error of quantization.

    A value above the limit a costs (|x| - a)^2. One below costs step^2 / 12, the variance of
    rounding, or x^2 where it rounds to 0. The step is that of 255 steps over the range.
    """
    amax = statistics.amax
    if amax == 0:
        return keep_all(statistics)
    limits = np.linspace(amax, amax * LEAST_LIMIT, CANDIDATES)
    best = float(limits[int(np.argmin(squared_errors(statistics, limits)))])
    return clipped(statistics, best)


def squared_errors(
    statistics: TensorStatistics, limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of squared quantization errors for each limit (see `least_squares`)."""
    edges, counts = statistics.edges(), statistics.counts
    middles = (edges[:-1] + edges[1:]) / 2
    middles[0] = 0.0
    number, total, squares = (
        np.concatenate([[0.0], np.cumsum(counts * middles**power)]) for power in (0, 1, 2)
    )
    low, high = np.maximum(statistics.low, -limits), np.minimum(statistics.high, limits)
    steps = (np.maximum(high, 0) - np.minimum(low, 0)) / (LEVELS - 1)
    above = np.searchsorted(middles, limits, side="right")
    rounded = np.minimum(np.searchsorted(middles, steps / 2, side="right"), above)
    clipping = (
        (squares[-1] - squares[above])
        - 2 * limits * (total[-1] - total[above])
        + limits**2 * (number[-1] - number[above])
    )
    rounding = squares[rounded] + (number[above] - number[rounded]) * steps**2 / 12
    errors: NDArray[np.float64] = clipping + rounding
    return errors


def clipped(statistics: TensorStatistics, limit: float) -> Range:
    """Return [low, high] cut to +-`limit`."""
    return Range(max(statistics.low, -limit), min(statistics.high, limit))


def linear_counts(statistics: TensorStatistics, bins: int) -> NDArray[np.float64]:
    """Return the histogram of |x| in `bins` bins of equal width up to the largest |x|.

    Within a bin of `statistics`, values are taken to be spread evenly.
    """
    within = np.concatenate([[0], np.cumsum(statistics.counts)]).astype(np.float64)
    places = np.linspace(0, statistics.amax, bins + 1)
    cumulated = np.interp(places, statistics.edges(), within)
    cumulated[-1] = within[-1]
    return np.diff(cumulated)


def _one_sided(statistics: TensorStatistics) -> bool:
    return statistics.low >= 0 or statistics.high <= 0


COLLECTORS: dict[str, Collector] = {
    "max": keep_all,
    "percentile": cut_percentile,
    "entropy": least_divergence,
    "mse": least_squares,
}
# These read no histogram. A pass for them alone keeps none.
EXTREMES_ONLY = frozenset({"max"})


def check_methods(methods: Iterable[str]) -> None:
    """Raise `UsageError` for a method that is not in `COLLECTORS`."""
    for method in methods:
        if method not in COLLECTORS:
            raise UsageError(
                f"unknown calibration method '{method}'",
                expected=nearest(method, (*COLLECTORS, "auto")),
            )
