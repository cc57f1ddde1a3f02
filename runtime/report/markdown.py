"""report.md: the verdict, the tables, what INT8 changed, and how it was measured."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finedge.runtime.report.method import method_text
from finedge.runtime.report.tables import ClassTable, Table, class_tables, flat, row_tables
from finedge.runtime.report.verdict import verdicts
from finedge.sanitize import printable

WORST = 20  # classes listed in Markdown; the HTML page holds all


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report as GitHub Markdown; text from users is escaped."""
    parts = [
        f"# Benchmark of {_safe(', '.join(dict.fromkeys(r['bundle'] for r in report['rows'])))}",
        f"Made {_safe(report['made'])}.",
    ]
    parts.append("\n".join(f"- **{_safe(v.lead)}** {_safe(v.rest)}" for v in verdicts(report)))
    for table in row_tables(report["rows"]):
        parts += [f"## {_safe(table.heading)}", _table(table.columns, table.rows), _reasons(table)]
    for classes in class_tables(report):
        parts += [
            f"## What INT8 changed, class by class: {_safe(classes.bundle)}",
            *_classes(classes),
        ]
    parts += ["## How it was measured", "\n".join(f"- {_safe(t)}" for t in method_text(report))]
    parts += ["## Environment", _table(("what", "value"), flat(report["environment"]))]
    return "\n\n".join(p for p in parts if p) + "\n"


def _reasons(table: Table) -> str:
    """Return why rows are INVALID, a line each."""
    return "\n".join(
        f"- **INVALID** {_safe(' '.join(row[:2]))}: {_safe(reason)}"
        for row, reason in zip(table.rows, table.reasons, strict=True)
        if reason
    )


def _classes(table: ClassTable) -> tuple[str, ...]:
    rows = [
        (
            c["label"],
            str(c["n"]),
            *(f"{100 * c['top1'][v]:.1f}" for v in table.variants),
            f"{100 * c['change']:+.1f}",
        )
        for c in table.changed[:WORST]
    ]
    rest = len(table.changed) - len(rows)
    note = f"{table.unchanged} classes did not change" + (
        f"; {rest} more that changed are in report.html." if rest else "."
    )
    return (
        _table(("class", "images", *(f"{v} top-1 %" for v in table.variants), "change"), rows)
        if rows
        else "",
        note,
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)


def _safe(text: str) -> str:
    """Escape what Markdown or its HTML would act on; a newline would end a table row."""
    plain = html.escape(printable(" ".join(text.split())), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in plain)
