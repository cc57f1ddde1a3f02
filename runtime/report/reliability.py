"""Reliability plots: geometry only; reliability.svg draws them.

One plot a bundle and variant. A point is a bin of answers: their mean probability, and the share
that is right. Its area grows with the number of answers, its bar is the Wilson interval. On the
diagonal probabilities mean what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finedge.measure import wilson95
from finedge.runtime.report.picture import colours

SIDE = 240  # pixels of a plot with its margins
LEFT, BOTTOM, REST = 34, 32, 10  # margins
LARGEST = 9.0  # radius in pixels of a bin that holds all answers
SMALLEST = 2.0


@dataclass(frozen=True)
class BinMark:
    """A bin in pixels; `low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    radius: float
    title: str


@dataclass(frozen=True)
class ReliabilityPlot:
    """The plot of one variant.

    Attributes:
        name: bundle and variant.
        colour: the index of the bundle's colour.
        ece: the expected calibration error.
        ece_uncalibrated: the same at temperature 1.
        marks: the bins that hold answers.
    """

    name: str
    colour: int
    ece: float
    ece_uncalibrated: float
    marks: tuple[BinMark, ...]

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plot in pixels."""
        return LEFT, REST, SIDE - REST, SIDE - BOTTOM

    @property
    def caption(self) -> str:
        """The calibration errors in words."""
        if abs(self.ece - self.ece_uncalibrated) < 0.0005:
            return f"calibration error {self.ece:.3f}"
        return f"calibration error {self.ece_uncalibrated:.3f} -> {self.ece:.3f} by temperature"


def reliability_plots(report: Mapping[str, Any]) -> tuple[ReliabilityPlot, ...]:
    """Return a plot for each bundle and variant whose accuracy was measured."""
    palette = colours(report["rows"])
    return tuple(
        _plot(f"{bundle} {variant}", palette.get(bundle, 0), record)
        for bundle, variants in report.get("reliability", {}).items()
        for variant, record in variants.items()
    )


def _plot(name: str, colour: int, record: Mapping[str, Any]) -> ReliabilityPlot:
    total = sum(n for n, _, _ in record["bins"])
    marks = tuple(_mark(n, p, right, total=total) for n, p, right in record["bins"] if n)
    return ReliabilityPlot(name, colour, record["ece"], record["ece_uncalibrated"], marks)


def _mark(n: int, p: float, right: float, *, total: int) -> BinMark:
    low, high = (_y(share) for share in wilson95(round(right * n), n))
    title = f"{n} answers with mean probability {p:.2f}: {100 * right:.0f} % right"
    radius = max(SMALLEST, LARGEST * math.sqrt(n / total))
    return BinMark(LEFT + p * (SIDE - LEFT - REST), _y(right), low, high, radius, title)


def _y(share: float) -> float:
    return SIDE - BOTTOM - share * (SIDE - BOTTOM - REST)
