"""The plot of accuracy against latency: geometry only; scatter.svg draws it.

The colour is the bundle, the shape the variant. Bars are Wilson intervals. A thin line leads from a
bundle's fp32 to its other variants: the trade that quantization makes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from finedge.pages.axes import AxisTick, Scale, nice_step
from finedge.runtime.report.labels import Box, free_place, line_boxes, mark_boxes
from finedge.runtime.report.verdict import latency_rows

SHAPES = {"fp32": "circle", "fp16": "square", "int8": "triangle"}
OTHER_SHAPE = "diamond"
End = TypeVar("End")
LOG_FROM = 12.0  # from this ratio of slowest to fastest on, the axis is logarithmic
MARGIN = {"left": 50, "right": 18, "top": 18, "bottom": 46}


@dataclass(frozen=True)
class Mark:
    """One row of the report.

    `x` and `y` are its point, `low` and `high` the ends of its interval, all in pixels. `colour` is
    an index, `text` stands in the box `label`, `title` appears under the mouse.
    """

    x: float
    y: float
    low: float
    high: float
    colour: int
    shape: str
    text: str
    label: Box
    title: str
    valid: bool

    @property
    def anchor(self) -> tuple[str, float]:
        """The SVG text-anchor that keeps the label's near edge at its point, and its x."""
        if self.label.left > self.x:
            return "start", self.label.left
        if self.label.right < self.x:
            return "end", self.label.right
        return "middle", (self.label.left + self.label.right) / 2

    @property
    def leader(self) -> tuple[float, float] | None:
        """Where a thin line from the point meets its label; None if the label is beside it."""
        x = min(max(self.x, self.label.left), self.label.right)
        y = min(max(self.y, self.label.top), self.label.bottom)
        return (x, y) if math.hypot(x - self.x, y - self.y) > 18 else None


@dataclass(frozen=True)
class ScatterPlot:
    """A scatter of `width` x `height` pixels; `links` are pairs of marks."""

    width: int
    height: int
    plot: Box
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]
    marks: tuple[Mark, ...]
    links: tuple[tuple[Mark, Mark], ...]
    log: bool


def picture(rows: Sequence[Mapping[str, Any]], *, width: int, height: int) -> ScatterPlot | None:
    """Lay out the rows that have both a median and an accuracy; None where there is none."""
    drawn = [r for r in latency_rows(rows) if r["p50_ms"] is not None and r["top1"] is not None]
    if not drawn:
        return None
    plot = Box(MARGIN["left"], MARGIN["top"], width - MARGIN["right"], height - MARGIN["bottom"])
    times = [r["p50_ms"] for r in drawn]
    log = max(times) / min(times) > LOG_FROM
    x_of, x_ticks = _log_axis(times, plot) if log else _linear_axis(times, plot)
    y_of, y_ticks = _accuracy_axis([s for r in drawn for s in r["wilson95"]], plot)
    marks = _marks(drawn, plot, x_of=x_of, y_of=y_of)
    return ScatterPlot(width, height, plot, x_ticks, y_ticks, marks, _links(drawn, marks), log)


def colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return a colour index for each bundle, in the order of the rows."""
    return {name: i for i, name in enumerate(dict.fromkeys(r["bundle"] for r in rows))}


# --- axes


def _linear_axis(times: Sequence[float], plot: Box) -> tuple[Scale, tuple[AxisTick, ...]]:
    """Start at 0, so that distances on the paper are ratios of times."""
    span = max(times) * 1.12
    step = nice_step(span, max(3, int((plot.right - plot.left) / 70)))

    def x_of(ms: float) -> float:
        return plot.left + ms / span * (plot.right - plot.left)

    values = [i * step for i in range(int(span / step) + 1)]
    return x_of, tuple(AxisTick(x_of(value), f"{value:g}") for value in values)


def _log_axis(times: Sequence[float], plot: Box) -> tuple[Scale, tuple[AxisTick, ...]]:
    low, high = math.log10(min(times) / 1.3), math.log10(max(times) * 1.3)

    def x_of(ms: float) -> float:
        return plot.left + (math.log10(ms) - low) / (high - low) * (plot.right - plot.left)

    multiples = (1, 2, 5) if high - low < 3 else (1,)
    exponents = range(math.floor(low), math.ceil(high) + 1)
    values = [multiple * 10**exponent for exponent in exponents for multiple in multiples]
    inside = [value for value in values if low <= math.log10(value) <= high]
    return x_of, tuple(AxisTick(x_of(value), f"{value:g}") for value in inside)


def _accuracy_axis(shares: Sequence[float], plot: Box) -> tuple[Scale, tuple[AxisTick, ...]]:
    percents = [100 * s for s in shares]
    step = nice_step(max(1.0, max(percents) - min(percents)) * 1.1, 6)
    first = max(0, math.floor((min(percents) - 0.04 * step) / step))
    last = min(math.ceil(100 / step), math.ceil((max(percents) + 0.04 * step) / step))
    low, high = first * step, last * step

    def y_of(share: float) -> float:
        return plot.bottom - (100 * share - low) / (high - low) * (plot.bottom - plot.top)

    values = [i * step for i in range(first, last + 1)]
    return y_of, tuple(AxisTick(y_of(value / 100), f"{value:g}") for value in values)


# --- marks and labels


def _marks(
    rows: Sequence[Mapping[str, Any]], plot: Box, *, x_of: Scale, y_of: Scale
) -> tuple[Mark, ...]:
    palette = colours(rows)
    points = [(x_of(row["p50_ms"]), y_of(row["top1"])) for row in rows]
    # Labels must not lie on points, interval bars, links or earlier labels.
    taken: list[Box] = []
    for row, (x, y) in zip(rows, points, strict=True):
        low, high = (y_of(share) for share in row["wilson95"])
        taken += mark_boxes(x, y, top=high, bottom=low)
    for first, second in _links(rows, points):
        taken += line_boxes(first, second)
    marks = []
    for row, (x, y) in zip(rows, points, strict=True):
        text = _label_text(row)
        label = free_place(x, y, text=text, plot=plot, taken=taken)
        taken.append(label)
        low, high = (y_of(share) for share in row["wilson95"])
        colour, shape = palette[row["bundle"]], SHAPES.get(row["variant"], OTHER_SHAPE)
        marks.append(Mark(x, y, low, high, colour, shape, text, label, _title(row), row["valid"]))
    return tuple(marks)


def _label_text(row: Mapping[str, Any]) -> str:
    name = row["bundle"] if len(row["bundle"]) <= 18 else row["bundle"][:17] + "…"
    return f"{name} {row['variant']}" + ("" if row["valid"] else " INVALID")


def _title(row: Mapping[str, Any]) -> str:
    low, high = (f"{100 * share:.1f}" for share in row["wilson95"])
    top1 = f"{100 * row['top1']:.1f} % top-1 ({low} to {high})"
    return f"{row['bundle']} {row['variant']}: {top1}, {row['p50_ms']:.2f} ms at p50"


def _links(rows: Sequence[Mapping[str, Any]], ends: Sequence[End]) -> tuple[tuple[End, End], ...]:
    """Pair the end of a bundle's fp32 row with the end of each of its other variants.

    `ends` has one entry for each row.
    """
    paired = [(row["bundle"], row["variant"], end) for row, end in zip(rows, ends, strict=True)]
    base = {bundle: end for bundle, variant, end in paired if variant == "fp32"}
    return tuple(
        (base[bundle], end)
        for bundle, variant, end in paired
        if variant != "fp32" and bundle in base
    )
