"""Durations of a run without end, in constant memory: counts in bins 1 % wide."""

from __future__ import annotations

import math
from array import array

from finedge.measure import MIN_QUERIES, supported

LOW_MS, HIGH_MS = (
    1e-3,
    1e7,
)  # a microsecond to three hours; what lies outside counts in the outermost bin
STEP = 1.01


class Histogram:
    """Counts durations in ms. A percentile is its bin's upper edge: at most 1 % above the nearest-rank sample, never below it."""

    def __init__(self) -> None:
        self.n = 0
        self._bins = array("Q", bytes(8 * (_bin(HIGH_MS) + 1)))

    def add(self, ms: float) -> None:
        """Count one duration."""
        self.n += 1
        self._bins[_bin(min(max(ms, LOW_MS), HIGH_MS))] += 1

    def percentile(self, percent: float) -> float:
        """Return the percentile in ms; `percent` in (0, 100]."""
        if not self.n:
            raise ValueError("no samples")
        rank, seen = max(1, math.ceil(percent / 100 * self.n)), 0
        for index, count in enumerate(self._bins):
            seen += count
            if seen >= rank:
                return LOW_MS * STEP**index
        raise AssertionError(self.n)

    def text(self, percent: float) -> str:
        """Return the percentile with three digits, or `n/a (n<662)` where the sample does not support it."""
        return (
            f"{self.percentile(percent):.3g}"
            if supported(percent, self.n)
            else f"n/a (n<{MIN_QUERIES[percent]})"
        )


def _bin(ms: float) -> int:
    """Return the bin whose upper edge LOW_MS * STEP**bin is the first at or above `ms`."""
    return math.ceil(math.log(ms / LOW_MS) / math.log(STEP))
