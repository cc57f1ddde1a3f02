"""Learning curves: geometry only; curves.svg draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finedge.pages.axes import AxisTick, nice_step

WIDTH, HEIGHT = 300, 190  # pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 28  # margins, in pixels
MAX_DOTS = 40  # epochs that are drawn as dots too


@dataclass(frozen=True)
class Curve:
    """One number by epoch, in pixels of a plot of WIDTH x HEIGHT.

    Attributes:
        title: what is drawn.
        last: its last value, as text.
        points: (x, y) of each epoch that has the number.
        band: corners of the area of the 95 % intervals; empty without intervals.
        x_ticks: epochs.
        y_ticks: values.
    """

    title: str
    last: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...]
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]

    @property
    def dots(self) -> tuple[tuple[float, float], ...]:
        """The points that are drawn as dots too."""
        return self.points if len(self.points) <= MAX_DOTS else self.points[-1:]


@dataclass(frozen=True)
class _Series:
    title: str
    unit: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...] = ()
    from_zero: bool = False


def curves(rows: Sequence[Mapping[str, Any]]) -> tuple[Curve, ...]:
    """Return the curves of the rows of metrics.jsonl: loss, val top-1, learning rate.

    A curve without numbers is left out.
    """
    val = [row for row in rows if row["val"].get("top1") is not None]
    series = (
        _series("training loss", rows, [row["loss"] for row in rows]),
        _accuracy(val),
        _series("learning rate", rows, [row.get("lr") for row in rows], from_zero=True),
    )
    return tuple(_curve(one) for one in series if one.values)


def _series(
    title: str,
    rows: Iterable[Mapping[str, Any]],
    values: Iterable[float | None],
    *,
    from_zero: bool = False,
) -> _Series:
    pairs = [
        (row["epoch"], value)
        for row, value in zip(rows, values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    epochs, numbers = tuple(e for e, _ in pairs), tuple(v for _, v in pairs)
    return _Series(title, "", epochs, numbers, from_zero=from_zero)


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> _Series:
    epochs = tuple(row["epoch"] for row in rows)
    values = tuple(100 * row["val"]["top1"] for row in rows)
    bounds = [row["val"].get("wilson95") for row in rows]
    intervals = tuple((100 * b[0], 100 * b[1]) for b in bounds if b)
    complete = intervals if len(intervals) == len(rows) else ()
    return _Series("val top-1, 95 % band", " %", epochs, values, complete)


def _curve(series: _Series) -> Curve:
    low, high, y_ticks = _values_axis(series)
    last_epoch = max(series.epochs)

    def place(epoch: float, value: float) -> tuple[float, float]:
        along = (epoch - 1) / max(1, last_epoch - 1)
        x = LEFT + along * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    pairs = zip(series.epochs, series.intervals, strict=bool(series.intervals))
    ends = [(place(e, bounds[0]), place(e, bounds[1])) for e, bounds in pairs]
    step = max(1, round(nice_step(max(1, last_epoch - 1), 6)))
    epochs = dict.fromkeys([1, *range(step, last_epoch + 1, step)])
    return Curve(
        series.title,
        f"{series.values[-1]:.4g}{series.unit}",
        points=tuple(place(e, v) for e, v in zip(series.epochs, series.values, strict=True)),
        band=tuple(top for _, top in ends) + tuple(bottom for bottom, _ in reversed(ends)),
        x_ticks=tuple(AxisTick(place(e, low)[0], f"{e}") for e in epochs),
        y_ticks=tuple(AxisTick(place(1, value)[1], f"{value:g}") for value in y_ticks),
    )


def _values_axis(series: _Series) -> tuple[float, float, list[float]]:
    """Return the lowest and the highest value of the axis, and its ticks."""
    drawn = [*series.values, *(bound for bounds in series.intervals for bound in bounds)]
    if series.from_zero:
        drawn.append(0.0)
    smallest, largest = min(drawn), max(drawn)
    step = nice_step(max(largest - smallest, abs(largest) * 0.02, 1e-9), 4)
    first, last = math.floor(smallest / step), math.ceil(largest / step)
    last = max(last, first + 1)
    # %g rounds 3 * 0.1 to 0.3.
    ticks = [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return first * step, last * step, ticks
