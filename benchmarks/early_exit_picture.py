"""Draw the curves of early exits: accuracy against the mean time, for each threshold.

    python benchmarks/early_exit_picture.py

It reads the rows of benchmarks/early_exit.py that have an exit which classifies, and writes
docs/images/early_exit.svg. Each point is a threshold of the exit at stride 16. Times are shares of
plain's in the same run, because the runs met machines that were busy in different degrees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/early_exit"
PICTURE = ROOT / "docs/images/early_exit.svg"
EXIT = "local_1"
# Of each row: the name of its model, and of the plain model that was trained as long.
CURVES = {
    "grocery-attend_rectify_1x1-s0-head1": ("head fitted again", "plain"),
    "grocery-attend_rectify_1x1-s0-local_loss": ("local_loss=1, --quick", "plain, --quick too"),
}
WIDTH, HEIGHT = 720, 400  # pixels
LEFT, TOP, RIGHT, BOTTOM = 52, 56, WIDTH - 24, HEIGHT - 48
SHARE, TOP1 = (0.7, 1.4), (74.0, 84.0)  # ranges of the axes: of plain's time; percent
STYLE = """
svg { --paper: #ffffff; --ink: #1c2126; --soft: #5c6670; --line: #e3e7ea; --a: #0b62a8;
  --b: #b3430c; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
@media (prefers-color-scheme: dark) { svg { --paper: #14171a; --ink: #e8eaec; --soft: #9aa5af;
  --line: #2c3238; --a: #6cb6ff; --b: #ff9a5c } }
.paper { fill: var(--paper) } text { fill: var(--soft) } .title { fill: var(--ink);
  font-size: 16px; font-weight: 600 } .grid { stroke: var(--line) } .a { color: var(--a) }
.b { color: var(--b) } .curve { stroke: currentColor; stroke-width: 2;
  fill: none } .dot { fill: currentColor } .name { fill: currentColor; stroke: var(--paper);
  stroke-width: 4px; paint-order: stroke }
"""


@dataclass(frozen=True)
class Point:
    """A threshold, or a model without exits."""

    time: float
    top1: float

    @property
    def place(self) -> tuple[float, float]:
        """Its x and y in pixels."""
        x = LEFT + (self.time - SHARE[0]) / (SHARE[1] - SHARE[0]) * (RIGHT - LEFT)
        y = BOTTOM - (100 * self.top1 - TOP1[0]) / (TOP1[1] - TOP1[0]) * (BOTTOM - TOP)
        return round(x, 1), round(y, 1)


def main() -> None:
    """Write the picture."""
    rows = [
        (json.loads(file.read_text()), titles)
        for name, titles in CURVES.items()
        if (file := RESULTS / f"{name}.json").is_file()
    ]
    parts = [*_axes()]
    for colour, (row, (title, plain)) in zip("ab", rows, strict=False):
        parts += _curve(row, title=title, colour=colour)
        parts += _named(_point(row["plain"], row), plain, colour=colour, drop=24)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    label = "<title>Top-1 against mean CPU time, for each threshold of an early exit</title>"
    style = f'<style>{STYLE}</style><rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>'
    write_text(PICTURE, "\n".join([head, label, style, *parts, "</svg>"]) + "\n")


def _axes() -> Iterator[str]:
    yield (
        f'<text class="title" x="{LEFT}" y="24">'
        "Early exit: top-1 % against mean CPU time of a frame (plain is 1)</text>"
    )
    yield (
        f'<text x="{LEFT}" y="42">Grocery Store, EfficientNet-Lite0, 160 px, INT8. Numbers: '
        "% of the images that leave at stride 16</text>"
    )
    for percent in range(int(TOP1[0]), int(TOP1[1]) + 1, 2):
        _, y = Point(SHARE[0], percent / 100).place
        yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{percent}</text>'
    for tenths in range(round(10 * SHARE[0]), round(10 * SHARE[1]) + 1):
        x, _ = Point(tenths / 10, 0.8).place
        yield f'<text x="{x}" y="{BOTTOM + 20}" text-anchor="middle">{tenths / 10:.1f}</text>'


def _curve(row: Mapping[str, Any], *, title: str, colour: str) -> Iterator[str]:
    curve = next(one for one in row["exits"] if one["output"] == EXIT)["curve"]
    thresholds = [at for at in curve if at["exit_loss"] is None]
    plain_ms = row["plain"]["cpu_ms"]
    points = [Point(at["mean_cpu_ms"] / plain_ms, at["test"]["top1"]) for at in thresholds]
    path = " ".join(f"{x},{y}" for x, y in (point.place for point in points))
    yield f'<polyline class="curve {colour}" points="{path}"/>'
    for at, point in zip(thresholds, points, strict=True):
        x, y = point.place
        yield f'<circle class="dot {colour}" cx="{x}" cy="{y}" r="3.5"/>'
        share = f"{100 * at['test']['share']:.0f}"
        side, dy = (-8, -6) if colour == "a" else (8, 14)
        anchor = "end" if side < 0 else "start"
        yield f'<text x="{x + side}" y="{y + dy}" text-anchor="{anchor}">{share}</text>'
    yield from _named(_point(row["whole"], row), f"no exits: {title}", colour=colour)


def _named(point: Point, name: str, *, colour: str, drop: int = 5) -> Sequence[str]:
    """Return a mark and its name, `drop` pixels lower."""
    x, y = point.place
    return (
        f'<rect class="dot {colour}" x="{x - 4}" y="{y - 4}" width="8" height="8"/>',
        f'<text class="name {colour}" x="{x + 10}" y="{y + drop}">{name}</text>',
    )


def _point(model: Mapping[str, float], row: Mapping[str, Any]) -> Point:
    return Point(model["cpu_ms"] / row["plain"]["cpu_ms"], model["top1"])


if __name__ == "__main__":
    main()
