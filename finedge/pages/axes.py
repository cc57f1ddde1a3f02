"""Axes of plots: round steps and the places of the ticks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Scale = Callable[[float], float]


@dataclass(frozen=True)
class AxisTick:
    """A tick at pixel `at`."""

    at: float
    text: str


def nice_step(span: float, ticks: int) -> float:
    """Return the smallest step that cuts `span` into at most `ticks` parts.

    It is 1, 2 or 5 times a power of ten.
    """
    power = math.pow(10, math.floor(math.log10(span / ticks)))
    return next(power * m for m in (1, 2, 5, 10) if power * m * ticks >= span * (1 - 1e-9))
