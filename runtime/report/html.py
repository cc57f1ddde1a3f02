"""report.html: one self-contained page; jinja2 escapes every text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2

from finedge.runtime.report.method import method_text
from finedge.runtime.report.picture import SHAPES, colours, picture
from finedge.runtime.report.tables import class_tables, flat, row_tables
from finedge.runtime.report.verdict import latency_rows, verdicts
from finedge.sanitize import printable

SIZES = {
    "wide": (880, 460),
    "narrow": (340, 340),
}  # the page shows the one that fits, so that letters keep their size
PARTS = ("preprocess", "infer", "post")
WORST = 15  # classes shown at once; the rest unfolds


@dataclass(frozen=True)
class Bar:
    """The stage split of a row: widths are percent of the longest bar."""

    text: str
    colour: int
    valid: bool
    total: str
    parts: tuple[tuple[str, float, str], ...]


def page(report: Mapping[str, Any]) -> str:
    """Return a report as one HTML page without outside assets or scripts."""
    templates = files("finedge.runtime.report")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_seen,
        loader=jinja2.FunctionLoader(lambda n: templates.joinpath(n).read_text("utf-8")),
    )
    rows = report["rows"]
    return environment.get_template("page.html").render(
        report=report,
        bundles=colours(rows),
        variants={v: SHAPES.get(v, "diamond") for v in dict.fromkeys(r["variant"] for r in rows)},
        verdicts=verdicts(report),
        pictures={name: picture(rows, width=w, height=h) for name, (w, h) in SIZES.items()},
        bars=_bars(latency_rows(rows)),
        stages=PARTS,
        tables=row_tables(rows),
        classes=class_tables(report),
        worst=WORST,
        environment=flat(report["environment"]),
        conditions=[
            (
                f"{r['bundle']} {r['variant']}, {r['mode']}",
                flat({"clocks": r["clocks"], "throttled": r["throttled"]}),
            )
            for r in rows
        ],
        method=method_text(report),
    )


def _seen(value: Any) -> Any:
    """Return a value of a template with its control characters escaped; what is markup already has none of a user's."""
    return printable(" ".join(value.split())) if type(value) is str else value


def _bars(rows: Sequence[Mapping[str, Any]]) -> tuple[Bar, ...]:
    palette = colours(rows)
    shown = [r for r in rows if all(r["stages_p50_ms"].get(p) is not None for p in PARTS)]
    longest = max((sum(r["stages_p50_ms"][p] for p in PARTS) for r in shown), default=1.0) or 1.0
    return tuple(_bar(r, palette[r["bundle"]], longest) for r in shown)


def _bar(row: Mapping[str, Any], colour: int, longest: float) -> Bar:
    stages = row["stages_p50_ms"]
    parts = tuple((p, 100 * stages[p] / longest, f"{stages[p]:.2f}") for p in PARTS)
    return Bar(
        f"{row['bundle']} {row['variant']}",
        colour,
        row["valid"],
        f"{sum(stages[p] for p in PARTS):.2f}",
        parts,
    )
