"""What the calibration pass keeps of a tensor: its extremes, and a histogram of its magnitudes.

Memory does not grow with the number of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The bins of |x| are those of float32 itself: its exponent and the first ten bits of its mantissa.
# So a bin is 1/1024 to 1/2048 of its values wide. Filling one takes no multiplication, and the
# order of the values does not matter.
MANTISSA_BITS = 10
SHIFT = 23 - MANTISSA_BITS
# Twelve octaves below the largest |x|: with a range cut to an eighth of it, half a step of 8 bits
# is still above the smallest bin. What is smaller rounds to 0 anyway, and is in the first bin.
OCTAVES = 12
BINS = OCTAVES << MANTISSA_BITS
MAGNITUDE = np.uint32(0x7FFFFFFF)  # without the sign
# Values that one image adds to the histogram of a tensor; the extremes see all. 256 images give 2
# million: 210 of them are above the 99.99th percentile.
SAMPLE = 8192


@dataclass(frozen=True)
class Glimpse:
    """What the statistics take of one batch of a tensor.

    Attributes:
        low: the smallest value; NaN where there is one.
        high: the largest value; NaN where there is one.
        images: how many images the batch had.
        values: for the histogram, float32 [n]; empty without one.
    """

    low: float
    high: float
    images: int
    values: NDArray[np.float32]


class TensorStatistics:
    """Extremes and magnitudes of one tensor, batch by batch; `low <= high` after the first.

    Args:
        counting: also keep the histogram; without it only `low` and `high` are known.
    """

    def __init__(self, *, counting: bool = True) -> None:
        self.low, self.high = math.inf, -math.inf
        self.counts = np.zeros(BINS if counting else 0, np.int64)
        self.images = 0  # counted
        self.first = 0  # the float32 bits of the first bin, shifted; 0 while all values are 0

    def observe(self, array: NDArray[np.float32]) -> None:
        """Take in one batch, float32 [images, ...], not empty.

        NaN and infinity stay visible in `low` and `high` (`finite`); they are not counted.
        """
        self.add(glimpse(array, first=self.images if self.counts.size else None))

    def add(self, seen: Glimpse) -> None:
        """Take in what `glimpse` kept of a batch."""
        self.low = _smaller(self.low, seen.low)
        self.high = -_smaller(-self.high, -seen.high)
        if self.counts.size and self.finite:
            self._fit()
            self._count(seen.values)
            self.images += seen.images

    @property
    def finite(self) -> bool:
        """Whether no NaN or infinity was seen."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def amax(self) -> float:
        """The largest |x|."""
        return max(abs(self.low), abs(self.high))

    def edges(self) -> NDArray[np.float64]:
        """Return the lower edges of the bins and the upper edge of the last, [BINS + 1].

        The first is 0: its bin holds all that is smaller.
        """
        bits = (np.arange(BINS + 1, dtype=np.uint32) + np.uint32(self.first)) << np.uint32(SHIFT)
        edges = bits.view(np.float32).astype(np.float64)
        edges[0] = 0.0
        return edges

    def _fit(self) -> None:
        """Move the bins up until the largest |x| is in the last octave; merge what falls out."""
        octave = (int(np.float32(self.amax).view(np.uint32)) >> 23) + 1
        first = max(0, (octave - OCTAVES) << MANTISSA_BITS)
        if moved := min(first - self.first, BINS - 1):
            merged = self.counts[: moved + 1].sum()
            self.counts[: BINS - moved] = self.counts[moved:].copy()
            self.counts[BINS - moved :] = 0
            self.counts[0] = merged
            self.first = first

    def _count(self, values: NDArray[np.float32]) -> None:
        bits = ((values.view(np.uint32) & MAGNITUDE) >> np.uint32(SHIFT)).astype(np.intp)
        bits -= self.first
        self.counts += np.bincount(np.maximum(bits, 0, out=bits), minlength=BINS)


def glimpse(array: NDArray[np.float32], *, first: int | None) -> Glimpse:
    """Look at one batch, float32 [images, ...], not empty; threads may do so at once.

    Args:
        array: a batch of the tensor.
        first: how many images came before; None where no histogram is kept.
    """
    values = np.empty(0, np.float32) if first is None else sample(array, first=first)
    return Glimpse(float(array.min()), float(array.max()), len(array), values)


def sample(array: NDArray[np.float32], *, first: int) -> NDArray[np.float32]:
    """Return at most 8192 values of each image, evenly spaced over channels, rows and columns.

    The spacing has no factor in common with the size of any axis, so that no channel or column is
    missed. It starts one value later in each image, so that no place is missed either.

    Args:
        array: float32 [images, ...].
        first: how many images came before.

    Returns:
        float32 [n], contiguous.
    """
    rows = np.ascontiguousarray(array).reshape(len(array), -1)
    size = rows.shape[1]
    step = -(-size // SAMPLE)
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    return np.concatenate([row[(first + i) % step :: step] for i, row in enumerate(rows)])


def _smaller(a: float, b: float) -> float:
    """Return the smaller number, or NaN if one of them is."""
    return b if b < a or math.isnan(b) else a
