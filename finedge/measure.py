"""Statistics that claim no more than the sample supports.

Percentiles are nearest-rank values of the raw samples. Proportions have 95 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# The fewest queries that support a percentile at 99 % confidence. Source: the MLPerf inference
# rules, early stopping, zero tolerance.
MIN_QUERIES: dict[float, int] = {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6636}


def supported(percent: float, n: int) -> bool:
    """Tell whether `n` samples support a percentile at 99 % confidence.

    `percent` is a key of MIN_QUERIES.
    """
    return n >= MIN_QUERIES[percent]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile, `percent` in (0, 100].

    It is a value that was measured. Nothing is interpolated.
    """
    if not samples:
        raise ValueError("no samples")
    return sorted(samples)[max(0, math.ceil(percent / 100 * len(samples)) - 1)]


def wilson95(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion, as two numbers in [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959963984540054, correct / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def upper95(count: int, n: int) -> float:
    """Return the one-sided 95 % upper bound of a proportion, in [0, 1] (Clopper and Pearson 1934).

    It is the largest share at which `count` or fewer of `n` have a chance of 5 %. With a count of 0
    it is about 3 / n.
    """
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(count, n, middle) > 0.05:
            low = middle
        else:
            high = middle
    return high


def _at_most(count: int, n: int, share: float) -> float:
    """Return the chance of `count` or fewer successes in `n` trials; `share` in (0, 1)."""
    if not 0 < share < 1:
        return 1.0 if share <= 0 else 0.0
    yes, no = math.log(share), math.log1p(-share)
    return math.fsum(
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * yes
            + (n - k) * no
        )
        for k in range(count + 1)
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: two classifiers on the same images.

    Args:
        only_first: images that only the first classifier labels right.
        only_second: images that only the second classifier labels right.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    # Summed in logarithms: 2^-n underflows past n = 1074.
    log_terms = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(t) for t in log_terms))


@dataclass
class StageTimes:
    """Raw wall times in milliseconds, one list per stage.

    A query adds one number to each stage that it passes.
    """

    samples_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, stage: str, ms: float) -> None:
        """Record one duration."""
        self.samples_ms.setdefault(stage, []).append(ms)

    def __getitem__(self, stage: str) -> list[float]:
        return self.samples_ms[stage]


def accuracy_record(top1: int, top5: int, n: int) -> dict[str, object]:
    """Return the record of an accuracy that `finedge evaluate` prints.

    It holds the share of `n` images whose label comes first, and the share whose label is among the
    first five.
    """
    return {
        "top1": round(top1 / n, 6),
        "top5": round(top5 / n, 6),
        "n": n,
        "wilson95": [round(x, 6) for x in wilson95(top1, n)],
    }
