"""The plot of a ranking: an SVG picture with one bar a layer, on a logarithmic axis of KL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Svg

from finedge.sanitize import clean

LONGEST = 40  # bars; the rest is named below them
LEFT, WIDTH, ROW, TOP = 250, 460, 18, 44  # pixels
RIGHT = 190  # for the text after a bar
SMALLEST = 1e-7  # nats; the error of the float model itself is of this size
COLOURS = {"attention": "#b5651d", "Gemm": "#6a4c93", "depthwise Conv": "#2a9d8f"}
OTHER = "#3a6ea5"


def ranking_svg(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Return the picture of the rows of `finedge sensitivity`, the most sensitive layer first."""
    shown = rows[:LONGEST]
    height = TOP + ROW * (len(shown) + 2)
    svg = Svg.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {LEFT + WIDTH + RIGHT} {height}",
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    _add(svg, "rect", width="100%", height="100%", fill="white")
    _text(svg, title, x=10, y=18, weight="bold")
    low, high = _decades([row["kl"] for row in shown])
    bottom = TOP + ROW * len(shown)
    for exponent in range(low, high + 1):
        x = LEFT + WIDTH * (exponent - low) / (high - low)
        _add(svg, "line", x1=x, x2=x, y1=TOP - 4, y2=bottom, stroke="#ddd")
        _text(svg, f"1e{exponent}", x=x, y=TOP - 8, anchor="middle")
    for index, row in enumerate(shown):
        _bar(svg, row, y=TOP + ROW * index, low=low, high=high)
    rest = f"; {len(rows) - len(shown)} more layers below these" if len(rows) > len(shown) else ""
    _text(svg, f"KL against float, nats, of this layer alone in INT8{rest}", x=LEFT, y=bottom + 18)
    return Svg.tostring(svg, encoding="unicode") + "\n"


def _bar(svg: Svg.Element, row: Mapping[str, Any], *, y: float, low: int, high: int) -> None:
    length = WIDTH * (math.log10(max(row["kl"], SMALLEST)) - low) / (high - low)
    _text(svg, row["module"][-36:], x=LEFT - 6, y=y + 13, anchor="end")
    colour = COLOURS.get(row["kind"], OTHER)
    _add(svg, "rect", x=LEFT, y=y + 3, width=max(1.0, length), height=ROW - 6, fill=colour)
    about = f"{row['kind']}, {100 * row['macs']:.1f} % of MACs"
    _text(svg, about, x=LEFT + max(1.0, length) + 6, y=y + 13, fill="#555")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the exponents at both ends of the axis."""
    logs = [math.log10(max(value, SMALLEST)) for value in values] or [0.0]
    low = math.floor(min(logs) - 1e-9)
    return low, max(low + 1, math.ceil(max(logs)))


def _add(svg: Svg.Element, tag: str, **attributes: float | str) -> Svg.Element:
    numbers = {
        key: value if isinstance(value, str) else f"{value:.1f}"
        for key, value in attributes.items()
    }
    return Svg.SubElement(svg, tag, numbers)


def _text(
    svg: Svg.Element,
    text: str,
    *,
    x: float,
    y: float,
    anchor: str = "start",
    fill: str = "#222",
    weight: str = "normal",
) -> None:
    element = _add(svg, "text", x=x, y=y, fill=fill)
    element.set("text-anchor", anchor)
    element.set("font-weight", weight)
    element.text = clean(text)
