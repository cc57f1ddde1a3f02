"""What `finedge sweep` shows: the plan, or the tables; and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from finedge.tables import UNKNOWN, fields, one_line, percent, stack, table

Cells = tuple[str, ...]
CONTROL = "own control"
"""The column of the differences to a family's own control."""
EDGE = "*"
AT_EDGE = f"{EDGE} at the edge of its grid: a better value may lie beyond it"
INT8 = (">INT8", ">INT8 CPU ms")


def show(result: dict[str, Any]) -> RenderableType:
    """Return the plan of a sweep, or its tables."""
    if "tables" not in result:
        return _plan(result)
    parts = [
        table(tuple(_headings(one["lines"])), _body(one["lines"]), title=_title(one))
        for one in result["tables"]
    ]
    note = "differences: points of top-1 on test (95 % interval over seeds and images; p)"
    at_edge = any(_has_edges(one["lines"]) for one in result["tables"])
    notes = [note, *([AT_EDGE] if at_edge else [])]
    return stack(*parts, *(one_line(text, "dim") for text in notes))


def markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables in Markdown."""
    parts = []
    for one in tables:
        headings = [heading.removeprefix(">") for heading in _headings(one["lines"])]
        head = [f"## {_title(one)}", "", _row(headings), _row(["---"] * len(headings))]
        foot = ["", AT_EDGE.replace(EDGE, f"\\{EDGE}")] if _has_edges(one["lines"]) else []
        parts.append("\n".join([*head, *map(_row, _body(one["lines"])), *foot]))
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
    int8 = INT8 if _has_int8(lines) else ()
    return [*usual, *published, *int8, *(f">against {name}" for name in _compared(lines))]


def _body(lines: Sequence[Mapping[str, Any]]) -> list[Cells]:
    return [_cells(line, lines) for line in lines]


def _cells(line: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Cells:
    if not line["seeds"]:
        reason = line["errors"][0] if line["errors"] else f"{line['tried']} settings tried"
        return (line["family"], reason, *[""] * (len(_headings(lines)) - 2))
    return (
        line["family"],
        ", ".join(_choice(line, key) for key in line["chosen"]),
        f"{line['tested']} of {line['seeds']}",
        percent(line["val"]),
        _with_spread(line),
        *([percent(line["published"])] if _has_published(lines) else []),
        *(_int8(line) if _has_int8(lines) else ()),
        *(_difference(line, name) for name in _compared(lines)),
    )


def _choice(line: Mapping[str, Any], key: str) -> str:
    return f"{key} {line['chosen'][key]}{EDGE if key in line['edges'] else ''}"


def _int8(line: Mapping[str, Any]) -> Cells:
    ms = line["int8_cpu_ms"]
    return percent(line["int8"]), UNKNOWN if ms is None else f"{ms:.2f}"


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


def _has_int8(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["int8"] is not None for line in lines)


def _has_edges(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["edges"] for line in lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
