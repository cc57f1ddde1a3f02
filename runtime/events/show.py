"""The table of `finedge events`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from finedge.tables import one_line, percent, stack, styled, table
from finedge.wall_time import parse_time

STATES = {"open": "still there", "interrupted": "cut off"}


def show(result: Mapping[str, Any]) -> RenderableType:
    """Return the table of visits, or that of counts a day."""
    if "counts" in result:
        rows = [(c["day"], c["label"], c["visits"], percent(c["best_p"])) for c in result["counts"]]
        return table(("day", "label", ">visits", ">best"), rows)
    columns = ("started", "label", ">p", ">seconds", ">frames", "source", "")
    parts = [table(columns, map(_row, result["events"]))]
    return stack(*parts, *_lines(result))


def _row(record: Mapping[str, Any]) -> tuple[object, ...]:
    name = record["answer"] or record["coarser"]
    return (
        _local(record["started_at"]),
        record["label"],
        percent(None if name is None else name["p"]),
        f"{record['seconds']:.1f}",
        record["frames"],
        record["source"],
        STATES.get(record["state"], ""),
    )


def _lines(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    listed, matched = len(result["events"]), result["matched"]
    if listed < matched:
        yield styled(f"the newest {listed} of {matched}: --limit shows more")
    if "csv" in result:
        yield one_line(f"wrote {result['csv']}")
    if "crops" in result:
        yield one_line(f"wrote {result['crops']['n']} crops to {result['crops']['out']}")


def _local(text: str) -> str:
    try:
        at = parse_time(text)
    except ValueError:
        return text
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
