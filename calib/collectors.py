"""Collectors: each sees the values of one tensor batch by batch, and returns the range to keep.

Memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finedge.calib.calibration_table import Range

# Of |x|. After a doubling at least half of them are in use: a step of at most 1/4096 of the largest
# value.
BINS = 8192


class Collector(Protocol):
    """Observes float32 arrays of any shape, all finite and not empty.

    `range()` may be called at any time after the first array.
    """

    def observe(self, array: NDArray[np.float32]) -> None:
        """Take in one batch."""

    def range(self) -> Range:
        """Return the range to quantize with."""


class MaxCollector:
    """Keeps everything: the smallest and the largest value seen."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def observe(self, array: NDArray[np.float32]) -> None:
        """Take in one batch."""
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))

    def range(self) -> Range:
        """Return [min, max]."""
        return Range(self.low, self.high)


class PercentileCollector:
    """Cuts off the largest magnitudes: [min, max] clipped to +-a.

    `percent` % of all |x| are at most a. It is read from a histogram of |x| with a fixed number of
    bins. When a value does not fit, neighbouring bins are merged and the bin width doubles. So a is
    exact to one bin, at most 1/4096 of the largest |x|.
    """

    def __init__(self, percent: float = 99.99) -> None:
        self.percent = percent
        self.extremes = MaxCollector()
        self.counts = np.zeros(BINS, np.int64)
        self.width = 0.0

    def observe(self, array: NDArray[np.float32]) -> None:
        """Take in one batch."""
        self.extremes.observe(array)
        self._fit(self.extremes.range().amax)
        if self.width == 0:  # only zeros so far
            self.counts[0] += array.size
            return
        positions = np.abs(array.ravel()) * np.float32(1 / self.width)
        bins = np.minimum(positions, BINS - 1).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    def range(self) -> Range:
        """Return [min, max] clipped to the percentile of |x|."""
        within = np.cumsum(self.counts)
        limit = (int(np.searchsorted(within, within[-1] * self.percent / 100)) + 1) * self.width
        extremes = self.extremes.range()
        return Range(max(extremes.low, -limit), min(extremes.high, limit))

    def _fit(self, amax: float) -> None:
        """Widen the bins until `amax` falls into the last one or before it."""
        if self.width == 0:
            self.width = amax / BINS
        while amax > self.width * BINS:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros(BINS // 2, np.int64)])
            self.width *= 2


COLLECTORS: dict[str, Callable[[], Collector]] = {
    "max": MaxCollector,
    "percentile": PercentileCollector,
}
