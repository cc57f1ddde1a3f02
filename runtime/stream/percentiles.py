"""Percentiles of all durations of a run without end, in constant memory: counts in 1 % bins.

The live page instead keeps its newest durations exactly (`finedge.runtime.sinks.live.camera`).
"""

from __future__ import annotations

import math
from array import array

from finedge.measure import MIN_QUERIES, supported

# A microsecond to three hours. A duration outside counts in the outermost bin.
LOW_MS, HIGH_MS = 1e-3, 1e7
STEP = 1.01


class RunPercentiles:
    """Counts durations in ms.

    A percentile is the upper edge of its bin: at most 1 % above the nearest-rank sample, never
    below it.
    """

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
        rank, total = max(1, math.ceil(percent / 100 * self.n)), 0
        for index, count in enumerate(self._bins):
            total += count
            if total >= rank:
                return LOW_MS * STEP**index
        raise AssertionError(self.n)

    def text(self, percent: float) -> str:
        """Return the percentile with three digits, or `n/a (n<662)` where samples are too few."""
        if supported(percent, self.n):
            return f"{self.percentile(percent):.3g}"
        return f"n/a (n<{MIN_QUERIES[percent]})"


def _bin(ms: float) -> int:
    """Return the bin whose upper edge LOW_MS * STEP**bin is the first at or above `ms`."""
    return math.ceil(math.log(ms / LOW_MS) / math.log(STEP))
