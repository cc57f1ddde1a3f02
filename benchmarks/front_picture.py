"""Draw fronts of accuracy and latency as SVG pictures for the README and the documentation.

    python benchmarks/front_picture.py

Each benchmarks/results/front/NAME.toml names committed rows, and becomes NAME.svg beside it. After
new rows, run it again. A picture has a light and a dark palette, and its own paper.

A point is on the front if no other point is at least as fast and more accurate, or as accurate and
faster. The line through the points of `plain` is what it reaches by its input size alone.
"""

from __future__ import annotations

import html
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomllib

from finedge.files import write_text
from finedge.measure import wilson95
from finedge.pages.axes import nice_step
from finedge.runtime.report.labels import Box, free_place, line_boxes, mark_boxes
from finedge.train.sweep.choose import chosen_settings
from finedge.train.sweep.file import read_sweep
from finedge.train.sweep.plan import groups
from finedge.train.sweep.rows import Rows

RESULTS = Path(__file__).resolve().parent / "results"
FRONTS = RESULTS / "front"
SWEEPS = RESULTS.with_name("sweeps")
WIDTH, HEIGHT = 860, 520  # pixels: about the width of a README
PLOT = Box(56, 58, WIDTH - 22, HEIGHT - 92)
STYLE = """
svg { --paper: #ffffff; --ink: #1c2126; --soft: #5c6670; --line: #e3e7ea; --plain: #0b62a8;
  --other: #b3430c;
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
@media (prefers-color-scheme: dark) { svg { --paper: #14171a; --ink: #e8eaec; --soft: #9aa5af;
  --line: #2c3238; --plain: #6cb6ff; --other: #ff9a5c } }
.paper { fill: var(--paper) } text { fill: var(--soft) } .title { fill: var(--ink);
  font-size: 17px; font-weight: 600 } .grid { stroke: var(--line) } .axis { stroke: var(--soft) }
.plain { color: var(--plain) } .other { color: var(--other) } .bar { stroke: currentColor;
  stroke-width: 1.5; opacity: 0.4; fill: none } .dot { stroke: currentColor; stroke-width: 2;
  fill: var(--paper) } .front .dot { fill: currentColor } .name { fill: currentColor;
  stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; paint-order: stroke }
.front .name { font-weight: 700 } .leader { stroke: currentColor; opacity: 0.45 }
.sizes { stroke: var(--plain); stroke-width: 2; fill: none }
"""


@dataclass(frozen=True)
class Point:
    """A model at an input size.

    Attributes:
        model: its name.
        size: of the input, in pixels.
        top1: the share of right answers at INT8, the mean over `seeds`.
        n: test images.
        ms: time of one answer at INT8, in milliseconds.
        seeds: trainings.
    """

    model: str
    size: int
    top1: float
    n: int
    ms: float
    seeds: int = 1

    @property
    def name(self) -> str:
        """What stands beside the point."""
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.model} {self.size} px{seeds}"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        return wilson95(round(self.top1 * self.n), self.n)


@dataclass(frozen=True)
class Axes:
    """Pixels of milliseconds and of shares; ticks are values. Neither axis starts at 0."""

    least_ms: float
    most_ms: float
    low: float
    high: float
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]

    def x(self, ms: float) -> float:
        """Return the pixel of a latency."""
        part = (ms - self.least_ms) / (self.most_ms - self.least_ms)
        return PLOT.left + part * (PLOT.right - PLOT.left)

    def y(self, share: float) -> float:
        """Return the pixel of a share."""
        part = (100 * share - self.low) / (self.high - self.low)
        return PLOT.bottom - part * (PLOT.bottom - PLOT.top)


def read_points(sources: dict[str, Any]) -> list[Point]:
    """Return the points of all sources; of the same model and size the last source counts."""
    points = [
        *(p for source in sources.get("families", ()) for p in _families(source)),
        *(p for source in sources.get("reports", ()) for p in _report(source)),
        *(p for source in sources.get("sweeps", ()) for p in _sweep(source)),
    ]
    return list({(point.model, point.size): point for point in points}.values())


def _families(source: dict[str, Any]) -> Iterator[Point]:
    folder = RESULTS / source["folder"]
    latency = json.loads((folder / "latency.json").read_text())
    by_family: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*-s*.json")):
        row = json.loads(path.read_text())
        by_family[row["family"]].append(row["int8"])
    for family, rows in by_family.items():
        if family in latency:
            top1 = sum(row["top1"] for row in rows) / len(rows)
            ms = latency[family]["int8"]["p50_ms"]
            yield Point(family, source["size"], top1, rows[0]["n"], ms, len(rows))


def _report(source: dict[str, Any]) -> Iterator[Point]:
    for row in json.loads((RESULTS / source["file"]).read_text())["rows"]:
        if row["variant"] == "int8" and row["mode"] == "single-stream" and row["valid"]:
            n, ms = row["accuracy_n"], row["p50_ms"]
            yield Point(row["bundle"], source["size"], row["top1"], n, ms)


def _sweep(source: dict[str, Any]) -> Iterator[Point]:
    """Yield a point for each family and size whose INT8 `finedge sweep --int8` measured."""
    file = read_sweep(SWEEPS / f"{source['sweep']}.toml")
    rows = Rows(RESULTS / "sweep" / source["sweep"])
    for group in (group for group in groups(file) if group.data == source["data"]):
        cpu_ms = rows.read_times(group)
        for family, setting in chosen_settings(file, group, rows).items():
            runs = rows.finished_runs(setting, seeds=file.seeds)
            answers = [right for run in runs if (right := rows.right(run, "int8")) is not None]
            if answers:
                top1 = sum(float(right.mean()) for right in answers) / len(answers)
                ms = cpu_ms[runs[0].path.name]
                yield Point(family, group.size, top1, answers[0].size, ms, len(answers))


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def picture(sources: dict[str, Any], points: Sequence[Point]) -> str:
    """Return the picture of the points that a file names."""
    return svg(points, title=sources["title"], time=sources["time"], notes=sources["notes"])


def svg(points: Sequence[Point], *, title: str, time: str, notes: Sequence[str]) -> str:
    """Return a picture. `time` says what the milliseconds are."""
    axes, best = _axes(points), front(points)
    plain = sorted((p for p in points if p.model == "plain"), key=lambda p: p.ms)
    line = [(axes.x(p.ms), axes.y(p.top1)) for p in plain]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
        f'<text class="title" x="18" y="30">{html.escape(title)}</text>',
        *_grid(axes, time=time),
        f'<path class="sizes" d="{path}"/>' if line else "",
        *_marks(points, axes, best=best, line=line),
        *_legend(),
        *(
            f'<text x="18" y="{HEIGHT - 30 + 18 * i}">{html.escape(note)}</text>'
            for i, note in enumerate(notes)
        ),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _axes(points: Sequence[Point]) -> Axes:
    times = [point.ms for point in points]
    bounds = [100 * bound for point in points for bound in point.interval]
    step = nice_step(max(1.0, max(bounds) - min(bounds)), 6)
    # Labels stand left of the fastest points and right of the slowest.
    span = max(0.1 * max(times), max(times) - min(times))
    least_ms, most_ms = max(0.0, min(times) - 0.42 * span), max(times) + 0.12 * span
    x_step = nice_step(most_ms - least_ms, 8)
    x_first = math.ceil(least_ms / x_step)
    first, last = math.floor(min(bounds) / step), math.ceil(max(bounds) / step)
    return Axes(
        least_ms,
        most_ms,
        first * step,
        last * step,
        tuple(i * x_step for i in range(x_first, int(most_ms / x_step) + 1)),
        tuple(i * step for i in range(first, last + 1)),
    )


def _grid(axes: Axes, *, time: str) -> Iterator[str]:
    for value in axes.y_ticks:
        y = axes.y(value / 100)
        yield f'<path class="grid" d="M{PLOT.left} {y:.1f}H{PLOT.right}"/>'
        yield f'<text x="{PLOT.left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    yield f'<path class="axis" d="M{PLOT.left} {PLOT.bottom}H{PLOT.right}"/>'
    for value in axes.x_ticks:
        x, y = axes.x(value), PLOT.bottom + 18
        yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{value:g}</text>'
    y = PLOT.bottom + 36
    words = html.escape(f"{time}, ms")
    yield f'<text x="{PLOT.right}" y="{y}" text-anchor="end">{words}</text>'
    turned = f'transform="translate(16 {PLOT.top}) rotate(-90)"'
    yield f'<text {turned} text-anchor="end">top-1 accuracy, %</text>'


def _legend() -> Iterator[str]:
    entries = (
        ("plain front", "on the front: nothing is faster and as accurate", 18),
        ("other", "not on the front", 346),
    )
    y = PLOT.bottom + 36
    for classes, text, x in entries:
        yield f'<g class="{classes}"><circle class="dot" cx="{x + 5}" cy="{y - 4}" r="5"/></g>'
        yield f'<text x="{x + 16}" y="{y}">{text}</text>'
    yield f'<path class="sizes" d="M482 {y - 4}h22"/><text x="510" y="{y}">plain by size</text>'


def _marks(
    points: Sequence[Point],
    axes: Axes,
    *,
    best: Sequence[Point],
    line: Sequence[tuple[float, float]],
) -> Iterator[str]:
    taken = [box for pair in pairwise(line) for box in line_boxes(*pair)]
    for point in points:
        low, high = (axes.y(bound) for bound in point.interval)
        taken += mark_boxes(axes.x(point.ms), axes.y(point.top1), top=high, bottom=low)
    # Points of the front choose their place first.
    for point in sorted(points, key=lambda p: p not in best):
        x, y = axes.x(point.ms), axes.y(point.top1)
        label = free_place(x, y, text=point.name, plot=PLOT, taken=taken)
        taken.append(label)
        yield _mark(point, axes, label=label, is_best=point in best)


def _mark(point: Point, axes: Axes, *, label: Box, is_best: bool) -> str:
    x, y = axes.x(point.ms), axes.y(point.top1)
    low, high = (axes.y(bound) for bound in point.interval)
    classes = ("plain" if point.model == "plain" else "other") + (" front" if is_best else "")
    anchor, text_x = _anchor(label, x)
    near = min(max(x, label.left), label.right), min(max(y, label.top), label.bottom)
    is_far = abs(near[0] - x) + abs(near[1] - y) > 20
    leader = f'<path class="leader" d="M{x:.1f} {y:.1f}L{near[0]:.1f} {near[1]:.1f}"/>'
    title = f"{point.name}: {100 * point.top1:.1f} %, {point.ms:.2f} ms"
    return (
        f'<g class="{classes}"><title>{html.escape(title)}</title>'
        f'<path class="bar" d="M{x:.1f} {low:.1f}V{high:.1f}"/>{leader if is_far else ""}'
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{6 if is_best else 4.5}"/>'
        f'<text class="name" x="{text_x:.1f}" y="{label.bottom - 4:.1f}" text-anchor="{anchor}">'
        f"{html.escape(point.name)}</text></g>"
    )


def _anchor(label: Box, x: float) -> tuple[str, float]:
    if label.left > x:
        return "start", label.left
    if label.right < x:
        return "end", label.right
    return "middle", (label.left + label.right) / 2


def main() -> None:
    for path in sorted(FRONTS.glob("*.toml")):
        sources = tomllib.loads(path.read_text())
        points = read_points(sources)
        if not points:
            sys.exit(f"{path} names no rows")
        write_text(path.with_suffix(".svg"), picture(sources, points))
        print(path.stem)
        for point in front(points):
            print(f"  {point.name}: {100 * point.top1:.1f} %, {point.ms:.2f} ms")


if __name__ == "__main__":
    main()
