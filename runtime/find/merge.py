"""Boxes that nearly touch become one."""

from __future__ import annotations

from collections.abc import Sequence

from finedge.runtime.find.box import Box


def merged(boxes: Sequence[Box], *, gap: int) -> list[Box]:
    """Return boxes of which no two are within `gap` pixels of each other."""
    wholes: list[Box] = []
    for box in boxes:
        while near := [other for other in wholes if _near(box, other, gap=gap)]:
            wholes = [other for other in wholes if other not in near]
            box = _around([box, *near])
        wholes.append(box)
    return wholes


def _near(one: Box, other: Box, *, gap: int) -> bool:
    across = max(one.x, other.x) - min(one.x + one.w, other.x + other.w)
    down = max(one.y, other.y) - min(one.y + one.h, other.y + other.h)
    return max(across, down) <= gap


def _around(boxes: Sequence[Box]) -> Box:
    left, top = min(b.x for b in boxes), min(b.y for b in boxes)
    right, bottom = max(b.x + b.w for b in boxes), max(b.y + b.h for b in boxes)
    return Box(left, top, right - left, bottom - top)
