"""The front of accuracy and latency: which points are on it, and the committed picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11

from benchmarks.front_picture import (  # noqa: E402
    SOURCES,
    Point,
    front,
    read_points,
    svg,
)


def point(name: str, ms: float, top1: float) -> Point:
    return Point(name, 160, top1, 100, ms)


def test_the_front_has_what_nothing_beats_the_fastest_first() -> None:
    best = [point("a", 1.0, 0.5), point("c", 3.0, 0.8)]
    beaten = [point("slow", 2.0, 0.5), point("b", 3.5, 0.8), point("d", 1.0, 0.4)]
    assert front([*beaten, *reversed(best)]) == best


def test_the_committed_picture_is_that_of_the_rows() -> None:
    """Where this fails: python benchmarks/front_picture.py."""
    sources = tomllib.loads(SOURCES.read_text())
    text = svg(read_points(sources), title=sources["title"], notes=sources["notes"])
    assert SOURCES.with_name("front.svg").read_text() == text


def test_names_are_escaped_and_one_point_is_enough() -> None:
    text = svg([point("<b>&", 1.0, 1.0)], title="<i>", notes=())
    ElementTree.fromstring(text)
    assert "&lt;b&gt;&amp; 160 px" in text
