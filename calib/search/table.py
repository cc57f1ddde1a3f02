"""What a terminal shows of a search: the table of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from finedge.tables import percent, stack, styled, table

COLUMNS = (
    ">pick",
    ">ms",
    ">drop, points",
    ">expected at most",
    ">KL",
    ">MACs in INT8",
    "layers in float",
)


def show_search(search: Mapping[str, Any]) -> RenderableType:
    """Return the points, the fastest first; the one that the files are made of is bold."""
    rows = [_row(number, point, search) for number, point in enumerate(search["points"], start=1)]
    title = (
        f"at most {search['max_drop']:g} points of top-1 may be lost: "
        f"{search['images']} training images and their hard views"
    )
    about = (
        f"fp32 takes {search['fp32_ms']:.2f} ms of CPU time for a frame on one thread; "
        "--pick N makes the files of another point"
    )
    return stack(table(COLUMNS, rows, title=title), styled(about, "dim"))


def _row(number: int, point: Mapping[str, Any], search: Mapping[str, Any]) -> tuple[object, ...]:
    style = "bold" if number == search["pick"] else "" if point["within"] else "dim"
    cells = (
        number,
        f"{point['ms']:.2f}",
        f"{100 * point['drop']:.2f}",
        f"{100 * point['drop_limit']:.2f}",
        f"{point['kl']:.4f}",
        percent(point["int8_macs"]),
        ", ".join(point["in_float"]) or "none",
    )
    return tuple(styled(cell, style) for cell in cells)
