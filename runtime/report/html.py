"""report.html: one page without outside assets; jinja2 escapes every text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finedge.pages.template import render
from finedge.runtime.early_exit.record import titled
from finedge.runtime.report.calibration import COLUMNS as DECISION_COLUMNS
from finedge.runtime.report.calibration import decision_tables
from finedge.runtime.report.exits import exit_tables
from finedge.runtime.report.method import method_text
from finedge.runtime.report.picture import OTHER_SHAPE, SHAPES, colours, picture
from finedge.runtime.report.reliability import reliability_plots
from finedge.runtime.report.tables import class_tables, flat, meanings, row_tables
from finedge.runtime.report.verdict import latency_rows, verdicts

# The page shows the plot that fits, so that letters keep their size.
SIZES = {"wide": (880, 460), "narrow": (340, 340)}
STAGES = ("preprocess", "infer", "post")
WORST = 15  # classes shown at once; the others unfold


@dataclass(frozen=True)
class Bar:
    """How the time of a row splits into stages.

    Attributes:
        text: the row's name.
        colour: the index of the bundle's colour.
        valid: whether the row is valid.
        parts: stage, width in percent of the longest bar, and milliseconds.
    """

    text: str
    colour: int
    valid: bool
    parts: tuple[tuple[str, float, str], ...]


def page(report: Mapping[str, Any]) -> str:
    """Return a report as one HTML page without outside assets or scripts."""
    rows = report["rows"]
    tables, variants = row_tables(rows), dict.fromkeys(row["variant"] for row in rows)
    return render(
        "page.html",
        package="finedge.runtime.report",
        report=report,
        bundles=colours(rows),
        variants={variant: SHAPES.get(variant, OTHER_SHAPE) for variant in variants},
        verdicts=verdicts(report),
        pictures={name: picture(rows, width=w, height=h) for name, (w, h) in SIZES.items()},
        bars=_bars(latency_rows(rows)),
        stages=STAGES,
        tables=tables,
        meanings=meanings(tables),
        classes=class_tables(report),
        early=any(row.get("early_exit") for row in rows),
        exits=exit_tables(report),
        decisions=decision_tables(report),
        decision_columns=DECISION_COLUMNS,
        worst=WORST,
        reliabilities=reliability_plots(report),
        environment=flat(report["environment"]),
        conditions=[_conditions(row) for row in rows],
        method=method_text(report),
    )


def _conditions(row: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a row's name, and its clocks and throttling as pairs of texts."""
    name = f"{titled(row['bundle'], row.get('early_exit'))} {row['variant']}, {row['mode']}"
    return name, flat({"clocks": row["clocks"], "throttled": row["throttled"]})


def _bars(rows: Sequence[Mapping[str, Any]]) -> tuple[Bar, ...]:
    palette = colours(rows)
    measured = [row for row in rows if all(row["stages_p50_ms"].get(s) is not None for s in STAGES)]
    totals = (sum(row["stages_p50_ms"][stage] for stage in STAGES) for row in measured)
    longest = max(totals, default=1.0) or 1.0
    return tuple(_bar(row, palette[row["bundle"]], longest) for row in measured)


def _bar(row: Mapping[str, Any], colour: int, longest: float) -> Bar:
    stages = row["stages_p50_ms"]
    parts = tuple((s, 100 * stages[s] / longest, f"{stages[s]:.2f}") for s in STAGES)
    return Bar(f"{row['bundle']} {row['variant']}", colour, row["valid"], parts)
