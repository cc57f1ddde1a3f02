"""What `finedge sweep` shows: the plan, or the tables; and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import RenderableType

from finedge.tables import UNKNOWN, fields, one_line, percent, stack, table

Cells = tuple[str, ...]
Against = Literal["against", "int8_against"]
CONTROL = "own control"
"""The column of the differences to a family's own control."""
EDGE = "*"
AT_EDGE = f"{EDGE} at the edge of its grid: a better value may lie beyond it"


@dataclass(frozen=True)
class _Part:
    """One table; a heading that begins with > is of a column of numbers."""

    title: str
    headings: Cells
    body: Sequence[Cells]
    has_edges: bool = False


def show(result: dict[str, Any]) -> RenderableType:
    """Return the plan of a sweep, or its tables."""
    if "tables" not in result:
        return _plan(result)
    parts = [
        table(one.headings, one.body, title=one.title)
        for one in (part for group in result["tables"] for part in _parts(group))
    ]
    note = "differences: points of top-1 on test (95 % interval over seeds and images; p)"
    at_edge = any(_has_edges(one["lines"]) for one in result["tables"])
    notes = [note, *([AT_EDGE] if at_edge else [])]
    return stack(*parts, *(one_line(text, "dim") for text in notes))


def markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables in Markdown."""
    texts = []
    for one in (part for group in tables for part in _parts(group)):
        headings = [heading.removeprefix(">") for heading in one.headings]
        head = [f"## {one.title}", "", _row(headings), _row(["---"] * len(headings))]
        foot = ["", AT_EDGE.replace(EDGE, f"\\{EDGE}")] if one.has_edges else []
        texts.append("\n".join([*head, *map(_row, one.body), *foot]))
    return "\n\n".join(texts) + "\n"


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


def _parts(group: Mapping[str, Any]) -> list[_Part]:
    """Return the table of a group, and that of INT8 where it was measured."""
    lines, title = group["lines"], _title(group)
    compared = _compared(lines, "against")
    headings = ["family", "chosen", ">seeds", ">val", ">test (sd)"]
    headings += [">paper"] if _has_published(lines) else []
    headings += [f">against {name}" for name in compared]
    body = [_cells(line, lines, compared=compared) for line in lines]
    parts = [_Part(title, tuple(headings), body, has_edges=_has_edges(lines))]
    if any(line["int8_tested"] for line in lines):
        parts.append(_int8_part(lines, title=f"{title}, INT8"))
    return parts


def _cells(
    line: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], *, compared: Sequence[str]
) -> Cells:
    published = [percent(line["published"])] if _has_published(lines) else []
    if not line["seeds"]:
        reason = line["errors"][0] if line["errors"] else f"{line['tried']} settings tried"
        return (line["family"], reason, *[""] * (3 + len(published) + len(compared)))
    return (
        line["family"],
        ", ".join(_choice(line, key) for key in line["chosen"]),
        f"{line['tested']} of {line['seeds']}",
        percent(line["val"]),
        _with_spread(line["test"], line["spread"]),
        *published,
        *(_difference(line, name, "against") for name in compared),
    )


def _int8_part(lines: Sequence[Mapping[str, Any]], *, title: str) -> _Part:
    compared = _compared(lines, "int8_against")
    headings = ("family", ">seeds", ">test (sd)", ">CPU ms", *(f">against {n}" for n in compared))
    body = [
        (
            line["family"],
            str(line["int8_tested"]),
            _with_spread(line["int8"], line["int8_spread"]),
            UNKNOWN if line["int8_cpu_ms"] is None else f"{line['int8_cpu_ms']:.2f}",
            *(_difference(line, name, "int8_against") for name in compared),
        )
        for line in lines
        if line["int8_tested"]
    ]
    return _Part(title, headings, body)


def _choice(line: Mapping[str, Any], key: str) -> str:
    return f"{key} {line['chosen'][key]}{EDGE if key in line['edges'] else ''}"


def _with_spread(top1: float | None, spread: float | None) -> str:
    if top1 is None:
        return UNKNOWN
    return percent(top1) + ("" if spread is None else f" ({100 * spread:.1f})")


def _difference(line: Mapping[str, Any], name: str, key: Against) -> str:
    if name == CONTROL:
        name = line["control"]
    if name not in line[key]:
        return ""
    one = line[key][name]
    return f"{one['mean']:+.1f} ({one['low']:+.1f}..{one['high']:+.1f}; {one['p']:.2g})"


def _compared(lines: Sequence[Mapping[str, Any]], key: Against) -> list[str]:
    """Return the families that lines are compared with; the control of each is one column."""
    shared = dict.fromkeys(n for line in lines for n in line[key] if n != line["control"])
    own = any(line["control"] in line[key] for line in lines)
    return [*shared, *([CONTROL] if own else [])]


def _has_published(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["published"] is not None for line in lines)


def _has_edges(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["edges"] for line in lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
