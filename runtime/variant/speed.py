"""How many times as fast one variant is as another, with an interval that needs no normal noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CONFIDENCE = 0.99
# The fewest paired blocks that support an interval: 2 * 0.5^8 = 0.8 % lie outside of all of them.
MIN_BLOCKS = 8
# "Faster" means more than this: a smaller gain is not worth other answers, and memory that lies
# otherwise may make as much of a difference between two openings of one file.
FASTER = 1.02
# In CPU time it means more: that does not show how well a variant uses several threads.
FASTER_IN_CPU_TIME = 1.15

Clock = Literal["wall time", "CPU time"]


@dataclass(frozen=True)
class Speed:
    """How many times as fast a variant is as another one.

    Attributes:
        ratio: the median over the blocks of (time of the other / its own time).
        low: the lower end of the 99 % interval of that median.
        high: the upper end.
        blocks: the number of paired blocks.
        clock: what was compared. CPU time stands in where other processes disturb the wall time.
    """

    ratio: float
    low: float
    high: float
    blocks: int
    clock: Clock = "wall time"

    @property
    def is_faster(self) -> bool:
        """Whether it is faster beyond noise."""
        return self.low > self._least

    @property
    def is_settled(self) -> bool:
        """Whether more blocks would not change `is_faster`, as far as the interval tells."""
        return self.is_faster or self.high <= self._least

    @property
    def _least(self) -> float:
        return FASTER if self.clock == "wall time" else FASTER_IN_CPU_TIME

    def __str__(self) -> str:
        interval = f"99 % interval {self.low:.2f}..{self.high:.2f}"
        clock = "" if self.clock == "wall time" else f"{self.clock}, "
        return f"{clock}{interval}, {self.blocks} blocks"


def paired_speed(
    other_ms: Sequence[float], own_ms: Sequence[float], *, clock: Clock = "wall time"
) -> Speed | None:
    """Compare two variants block by block; None for fewer than 8 blocks.

    A block holds one time of each, measured right after another, so that drift of the machine
    meets both. The interval is the sign test's: two order statistics of the ratios. It is right
    for any distribution of the noise.

    Args:
        other_ms: a time for each block.
        own_ms: the times of the variant that the result is about, in the same blocks.
        clock: what the times are.

    Examples:
        >>> paired_speed([2.0] * 8, [1.0] * 8)
        Speed(ratio=2.0, low=2.0, high=2.0, blocks=8, clock='wall time')
    """
    ratios = sorted(other / own for other, own in zip(other_ms, own_ms, strict=True))
    if len(ratios) < MIN_BLOCKS:
        return None
    outside = _outside(len(ratios))
    low, high = ratios[outside], ratios[len(ratios) - 1 - outside]
    middle = statistics.median(ratios)
    return Speed(round(middle, 4), round(low, 4), round(high, 4), len(ratios), clock)


def _outside(n: int) -> int:
    """Return how many ratios may lie beyond each end of the interval of `n` ratios."""
    tail, allowed = 0.0, (1 - CONFIDENCE) / 2
    for k in range(n):
        tail += math.comb(n, k) / 2**n
        if tail > allowed:
            return max(0, k - 1)
    raise AssertionError(n)
