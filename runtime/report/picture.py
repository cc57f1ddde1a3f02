"""The accuracy-versus-latency picture: geometry only; scatter.svg draws it.

Colour is the bundle, shape the variant. Bars are Wilson intervals. A thin line leads from a bundle's fp32 to its other
variants: the trade that quantization makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from finedge.runtime.report.verdict import latency_rows

SHAPES = {"fp32": "circle", "fp16": "square", "int8": "triangle"}
End = TypeVar("End")
LOG_FROM = 12.0  # a ratio of slowest to fastest past this is drawn on a logarithmic axis
FONT = 13
CHARACTER = 0.58 * FONT  # the mean width of a letter of the system fonts, on the safe side
MARGIN = {"left": 50, "right": 18, "top": 18, "bottom": 46}


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Tick:
    """A tick at pixel `at`."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One row: its point, the ends of its interval, its colour index, shape and direct label."""

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
        """The SVG text-anchor that keeps the label's near edge at its point, and the x it refers to."""
        if self.label.left > self.x:
            return "start", self.label.left
        return (
            ("end", self.label.right)
            if self.label.right < self.x
            else ("middle", (self.label.left + self.label.right) / 2)
        )

    @property
    def leader(self) -> tuple[float, float] | None:
        """Where a thin line from the point meets a label that could not stand beside it, else None."""
        x, y = (
            min(max(self.x, self.label.left), self.label.right),
            min(max(self.y, self.label.top), self.label.bottom),
        )
        return (x, y) if math.hypot(x - self.x, y - self.y) > 18 else None


@dataclass(frozen=True)
class Picture:
    """A scatter of `width` x `height` pixels; `links` are pairs of marks."""

    width: int
    height: int
    plot: Box
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    links: tuple[tuple[Mark, Mark], ...]
    log: bool


def picture(rows: Sequence[Mapping[str, Any]], *, width: int, height: int) -> Picture | None:
    """Lay out the rows that have both a median and an accuracy; None where there is none."""
    shown = [r for r in latency_rows(rows) if r["p50_ms"] is not None and r["top1"] is not None]
    if not shown:
        return None
    plot = Box(MARGIN["left"], MARGIN["top"], width - MARGIN["right"], height - MARGIN["bottom"])
    times = [r["p50_ms"] for r in shown]
    log = max(times) / min(times) > LOG_FROM
    x_of, x_ticks = _log_axis(times, plot) if log else _linear_axis(times, plot)
    y_of, y_ticks = _accuracy_axis([s for r in shown for s in r["wilson95"]], plot)
    marks = _marks(shown, plot, x_of=x_of, y_of=y_of)
    return Picture(width, height, plot, x_ticks, y_ticks, marks, _links(shown, marks), log)


def colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return a colour index for each bundle, in the order of the rows."""
    return {name: i for i, name in enumerate(dict.fromkeys(r["bundle"] for r in rows))}


def nice_step(span: float, ticks: int) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that cuts `span` into at most `ticks` parts."""
    power = math.pow(10, math.floor(math.log10(span / ticks)))
    return next(power * m for m in (1, 2, 5, 10) if power * m * ticks >= span * (1 - 1e-9))


# --- axes ---------------------------------------------------------------------------------------------------------------

Scale = Callable[[float], float]


def _linear_axis(times: Sequence[float], plot: Box) -> tuple[Scale, tuple[Tick, ...]]:
    """From 0, so that distances on the paper are ratios of times."""
    span = max(times) * 1.12
    step = nice_step(span, max(3, int((plot.right - plot.left) / 70)))

    def x_of(ms: float) -> float:
        return plot.left + ms / span * (plot.right - plot.left)

    return x_of, tuple(Tick(x_of(i * step), f"{i * step:g}") for i in range(int(span / step) + 1))


def _log_axis(times: Sequence[float], plot: Box) -> tuple[Scale, tuple[Tick, ...]]:
    low, high = math.log10(min(times) / 1.3), math.log10(max(times) * 1.3)

    def x_of(ms: float) -> float:
        return plot.left + (math.log10(ms) - low) / (high - low) * (plot.right - plot.left)

    values = [
        m * 10**e
        for e in range(math.floor(low), math.ceil(high) + 1)
        for m in ((1, 2, 5) if high - low < 3 else (1,))
    ]
    return x_of, tuple(Tick(x_of(v), f"{v:g}") for v in values if low <= math.log10(v) <= high)


def _accuracy_axis(shares: Sequence[float], plot: Box) -> tuple[Scale, tuple[Tick, ...]]:
    percents = [100 * s for s in shares]
    step = nice_step(max(1.0, max(percents) - min(percents)) * 1.1, 6)
    first = max(0, math.floor((min(percents) - 0.04 * step) / step))
    last = min(math.ceil(100 / step), math.ceil((max(percents) + 0.04 * step) / step))
    low, high = first * step, last * step

    def y_of(share: float) -> float:
        return plot.bottom - (100 * share - low) / (high - low) * (plot.bottom - plot.top)

    return y_of, tuple(Tick(y_of(i * step / 100), f"{i * step:g}") for i in range(first, last + 1))


# --- marks and labels -----------------------------------------------------------------------------------------------------


def _marks(
    rows: Sequence[Mapping[str, Any]], plot: Box, *, x_of: Scale, y_of: Scale
) -> tuple[Mark, ...]:
    palette = colours(rows)
    # Points, interval bars and links are obstacles for every label; a placed label is one for those that follow.
    points = [(x_of(r["p50_ms"]), y_of(r["top1"])) for r in rows]
    taken = [
        b
        for r, (x, y) in zip(rows, points, strict=True)
        for b in _obstacles(x, y, y_of(r["wilson95"][1]), y_of(r["wilson95"][0]))
    ]
    taken += [b for first, second in _links(rows, points) for b in _dots(first, second)]
    marks = []
    for row in rows:
        x, y, text = x_of(row["p50_ms"]), y_of(row["top1"]), _label_text(row)
        label = _free_place(x, y, text, plot=plot, taken=taken)
        taken.append(label)
        low, high = (y_of(s) for s in row["wilson95"])
        marks.append(
            Mark(
                x,
                y,
                low,
                high,
                palette[row["bundle"]],
                SHAPES.get(row["variant"], "diamond"),
                text,
                label,
                _title(row),
                row["valid"],
            )
        )
    return tuple(marks)


def _obstacles(x: float, y: float, top: float, bottom: float) -> tuple[Box, Box]:
    return Box(x - 9, y - 9, x + 9, y + 9), Box(x - 4, top, x + 4, bottom)


def _dots(first: tuple[float, float], second: tuple[float, float]) -> list[Box]:
    """Return small boxes along the line between two points."""
    steps = max(1, int(math.dist(first, second) / 8))
    along = [
        (
            first[0] + (second[0] - first[0]) * i / steps,
            first[1] + (second[1] - first[1]) * i / steps,
        )
        for i in range(steps + 1)
    ]
    return [Box(x - 2, y - 2, x + 2, y + 2) for x, y in along]


def _free_place(x: float, y: float, text: str, *, plot: Box, taken: Sequence[Box]) -> Box:
    """Return the nearest place for a label that hits nothing; where all do, the one that hits least."""
    width, height = CHARACTER * len(text), FONT * 1.25
    places = [_box_at(x + dx, y + dy, width, height) for dx, dy in _offsets(width)]
    inside = [
        p
        for p in places
        if p.left >= plot.left + 2
        and p.right <= plot.right + 14
        and p.top >= plot.top - 14
        and p.bottom <= plot.bottom - 2
    ]
    return min(inside or places, key=lambda p: sum(p.overlap(t) for t in taken))


def _box_at(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _offsets(width: float) -> list[tuple[float, float]]:
    """Where the middle of a label may lie relative to its point, nearest first: beside, diagonal, then further up and down."""
    side = width / 2 + 13
    rows = sorted((16.0 * i for i in range(-10, 11)), key=abs)
    return [(sign * side, dy) for dy in rows for sign in (1, -1)] + [
        (0.0, dy) for dy in rows if abs(dy) > 16
    ]


def _label_text(row: Mapping[str, Any]) -> str:
    name = row["bundle"] if len(row["bundle"]) <= 18 else row["bundle"][:17] + "…"
    return f"{name} {row['variant']}" + ("" if row["valid"] else " INVALID")


def _title(row: Mapping[str, Any]) -> str:
    low, high = row["wilson95"]
    return f"{row['bundle']} {row['variant']}: {100 * row['top1']:.1f} % top-1 ({100 * low:.1f} to {100 * high:.1f}), {row['p50_ms']:.2f} ms at p50"


def _links(rows: Sequence[Mapping[str, Any]], ends: Sequence[End]) -> tuple[tuple[End, End], ...]:
    """Pair what belongs to a bundle's fp32 row with what belongs to each of its other variants."""
    base = {r["bundle"]: end for r, end in zip(rows, ends, strict=True) if r["variant"] == "fp32"}
    return tuple(
        (base[r["bundle"]], end)
        for r, end in zip(rows, ends, strict=True)
        if r["variant"] != "fp32" and r["bundle"] in base
    )
