"""What `finedge sweep` shows: the plan, or the tables; and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from finedge.tables import UNKNOWN, fields, one_line, percent, stack, table

Cells = tuple[str, ...]
CONTROL = "own control"
"""The column of the differences to a family's own control."""


def show(result: dict[str, Any]) -> RenderableType:
    """Return the plan of a sweep, or its tables."""
    if "tables" not in result:
        return _plan(result)
    parts = [
        table(tuple(_headings(one["lines"])), _body(one["lines"]), title=_title(one))
        for one in result["tables"]
    ]
    note = "differences: points of top-1 on test (95 % interval over seeds and images; p)"
    return stack(*parts, one_line(note, "dim"))


def markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables in Markdown."""
    parts = []
    for one in tables:
        headings = [heading.removeprefix(">") for heading in _headings(one["lines"])]
        head = [f"## {_title(one)}", "", _row(headings), _row(["---"] * len(headings))]
        parts.append("\n".join([*head, *map(_row, _body(one["lines"]))]))
    return "\n\n".join(parts) + "\n"


def _plan(result: Mapping[str, Any]) -> RenderableType:
    columns = ("data", "recipe", "backbone", ">size", ">families", ">search", ">seeds", ">done")
    rows = [
        (
            group["data"],
            group["recipe"],
            group["backbone"],
            str(group["size"] or "recipe's"),
            group["families"],
            f"{group['families']} x {group['settings']}",
            group["more_seeds"],
            group["finished"],
        )
        for group in result["groups"]
    ]
    pairs = [("stage", result["stage"]), ("trainings", result["runs"])]
    return stack(table(columns, rows), fields(pairs))


def _title(one: Mapping[str, Any]) -> str:
    size = f"{one['size']} px" if one["size"] else "the recipe's size"
    return f"{one['data']}, {one['backbone']}, {size}, {one['recipe']}"


def _headings(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    usual = ["family", "chosen", ">seeds", ">val", ">test (sd)"]
    published = [">paper"] if _has_published(lines) else []
    return [*usual, *published, *(f">against {name}" for name in _compared(lines))]


def _body(lines: Sequence[Mapping[str, Any]]) -> list[Cells]:
    common = _compared(lines)
    return [_cells(line, common, published=_has_published(lines)) for line in lines]


def _cells(line: Mapping[str, Any], common: Sequence[str], *, published: bool) -> Cells:
    if not line["seeds"]:
        reason = line["errors"][0] if line["errors"] else f"{line['tried']} settings tried"
        return (line["family"], reason, *[""] * (3 + published + len(common)))
    return (
        line["family"],
        ", ".join(f"{key} {value}" for key, value in line["chosen"].items()),
        f"{line['tested']} of {line['seeds']}",
        percent(line["val"]),
        _with_spread(line),
        *([percent(line["published"])] if published else []),
        *(_difference(line, name) for name in common),
    )


def _with_spread(line: Mapping[str, Any]) -> str:
    if line["test"] is None:
        return UNKNOWN
    spread = "" if line["spread"] is None else f" ({100 * line['spread']:.1f})"
    return percent(line["test"]) + spread


def _difference(line: Mapping[str, Any], name: str) -> str:
    if name == CONTROL:
        name = next((other for other in line["against"] if other == line["control"]), "")
    if name not in line["against"]:
        return ""
    one = line["against"][name]
    return f"{one['mean']:+.1f} ({one['low']:+.1f}..{one['high']:+.1f}; {one['p']:.2g})"


def _compared(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the families that lines are compared with; the control of each is one column."""
    shared = dict.fromkeys(n for line in lines for n in line["against"] if n != line["control"])
    own = any(line["control"] in line["against"] for line in lines)
    return [*shared, *([CONTROL] if own else [])]


def _has_published(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["published"] is not None for line in lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
