"""report.md: the verdict, the tables, what INT8 changed, and how it was measured."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finedge.runtime.report.calibration import COLUMNS as DECISION_COLUMNS
from finedge.runtime.report.calibration import decision_tables
from finedge.runtime.report.exits import exit_tables
from finedge.runtime.report.method import method_text
from finedge.runtime.report.reliability import reliability_plots
from finedge.runtime.report.tables import (
    ClassTable,
    Table,
    class_tables,
    flat,
    meanings,
    row_tables,
)
from finedge.runtime.report.verdict import verdicts
from finedge.sanitize import printable

WORST = 20  # classes listed in Markdown; the HTML page holds all


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report as GitHub Markdown; text from users is escaped."""
    bundles = ", ".join(dict.fromkeys(row["bundle"] for row in report["rows"]))
    tables = row_tables(report["rows"])
    parts = [f"# Benchmark of {_safe(bundles)}", f"Made {_safe(report['made'])}."]
    parts.append(_list(f"**{_safe(v.lead)}** {_safe(v.rest)}" for v in verdicts(report)))
    for table in tables:
        parts += [f"## {_safe(table.heading)}", _table(table.columns, table.rows), _reasons(table)]
    columns = meanings(tables).items()
    parts += [
        "## What the columns mean",
        _list(f"**{_safe(title)}**: {_safe(meaning)}" for title, meaning in columns),
    ]
    for classes in class_tables(report):
        heading = f"## What INT8 changed, class by class: {_safe(classes.bundle)}"
        parts += [heading, *_classes(classes)]
    parts += _reliability(report)
    for exits in exit_tables(report):
        heading = f"## {_safe(exits.heading)}"
        parts += [heading, _safe(exits.reason), _table(exits.columns, exits.rows)]
    for decision in decision_tables(report):
        heading = f"## {_safe(decision.heading)}"
        parts += [heading, _safe(decision.reason), _table(DECISION_COLUMNS, decision.rows)]
    parts += ["## How it was measured", _list(map(_safe, method_text(report)))]
    parts += ["## Environment", _table(("fact", "value"), flat(report["environment"]))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reliability(report: Mapping[str, Any]) -> list[str]:
    """Return the calibration errors: how far the probabilities can be trusted."""
    plots = reliability_plots(report)
    if not plots:
        return []
    columns = ("variant", "calibration error at temperature 1", "with its temperature")
    rows = ((plot.name, f"{plot.ece_uncalibrated:.3f}", f"{plot.ece:.3f}") for plot in plots)
    return ["## Can the probabilities be trusted?", _table(columns, rows)]


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _reasons(table: Table) -> str:
    """Return why rows are INVALID, a line each."""
    return "\n".join(
        f"- **INVALID** {_safe(' '.join(row[:2]))}: {_safe(reason)}"
        for row, reason in zip(table.rows, table.reasons, strict=True)
        if reason
    )


def _classes(table: ClassTable) -> tuple[str, ...]:
    """Return the table of the worst classes, and a line on the others."""
    others = len(table.changed) - len(table.changed[:WORST])
    note = f"{table.unchanged} classes did not change."
    if others:
        note += f" {others} more that changed are in report.html."
    if not table.changed:
        return (note,)
    top1 = (f"{variant} top-1 %" for variant in table.variants)
    columns = ("class", "images", *top1, "answers changed", "McNemar p", "change")
    return _table(columns, (_class_row(c, table.variants) for c in table.changed[:WORST])), note


def _class_row(entry: Mapping[str, Any], variants: Sequence[str]) -> tuple[str, ...]:
    top1 = (f"{100 * entry['top1'][variant]:.1f}" for variant in variants)
    flips, p = entry.get("flips"), entry.get("mcnemar_p")
    numbers = ("-" if flips is None else str(flips), "-" if p is None else f"{p:.2g}")
    return entry["label"], str(entry["n"]), *top1, *numbers, f"{100 * entry['change']:+.1f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)


def _safe(text: str) -> str:
    """Escape what Markdown or its HTML would act on; a newline would end a table row."""
    plain = html.escape(printable(" ".join(text.split())), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in plain)
