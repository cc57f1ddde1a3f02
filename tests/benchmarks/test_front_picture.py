"""The front of accuracy and latency: which points are on it, and the committed picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11

from benchmarks.front_picture import (  # noqa: E402
    FRONTS,
    Point,
    front,
    picture,
    read_points,
    svg,
)


def point(name: str, ms: float, top1: float) -> Point:
    return Point(name, 160, top1, 100, ms)


def test_the_front_has_what_nothing_beats_the_fastest_first() -> None:
    best = [point("a", 1.0, 0.5), point("c", 3.0, 0.8)]
    beaten = [point("slow", 2.0, 0.5), point("b", 3.5, 0.8), point("d", 1.0, 0.4)]
    assert front([*beaten, *reversed(best)]) == best


@pytest.mark.parametrize("path", sorted(FRONTS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_committed_picture_is_that_of_the_rows(path: Path) -> None:
    """Where this fails: python benchmarks/front_picture.py."""
    sources = tomllib.loads(path.read_text())
    text = picture(sources, read_points(sources))
    assert path.with_suffix(".svg").read_text() == text


def test_names_are_escaped_and_one_point_is_enough() -> None:
    text = svg([point("<b>&", 1.0, 1.0)], title="<i>", time="<u>", notes=())
    ElementTree.fromstring(text)
    assert "&lt;b&gt;&amp; 160 px" in text
