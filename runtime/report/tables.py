"""The tables of a report as rows of text, shared by Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finedge.measure import MIN_QUERIES

NOT_MEASURED = "n/a"
HEADINGS = {
    "single-stream": "Single-stream: the next frame when the last answer is back",
    "offline": "Offline: batches back to back, for throughput",
    "camera": "Camera: frames come at their own rate and age until they are answered",
}


@dataclass(frozen=True)
class Table:
    """A heading, column titles, and rows of cells; `reasons` has one text a row, empty where the row is valid."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]


Cell = Callable[[Mapping[str, Any]], str]


def percentile_cell(percent: int) -> Cell:
    """Return what writes a percentile, or `n/a (n<662)` where the sample did not support it."""

    def cell(row: Mapping[str, Any]) -> str:
        value = row[f"p{percent}_ms"]
        return f"{value:.2f}" if value is not None else f"n/a (n<{MIN_QUERIES[percent]})"

    return cell


def milliseconds(value: float | None) -> str:
    """Return two decimals, or n/a."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def _top1(row: Mapping[str, Any]) -> str:
    if row["top1"] is None:
        return "not measured"
    low, high = row["wilson95"]
    return f"{100 * row['top1']:.1f} ({100 * low:.1f}..{100 * high:.1f})"


def _change(row: Mapping[str, Any]) -> str:
    if row["top1_change"] is None:
        return "-"
    low, high = row["top1_change95"]
    return f"{100 * row['top1_change']:+.1f} ({100 * low:+.1f}..{100 * high:+.1f})"


COLUMNS: dict[str, Cell] = {
    "bundle": lambda r: r["bundle"],
    "variant": lambda r: r["variant"],
    "p50 ms": percentile_cell(50),
    "top-1 % (95 %)": _top1,
    "against fp32 (95 %)": _change,
    "McNemar p": lambda r: "-" if r["mcnemar_p"] is None else f"{r['mcnemar_p']:.2g}",
    "": lambda r: "valid" if r["valid"] else "INVALID",
    "p90": percentile_cell(90),
    "p95": percentile_cell(95),
    "p99": percentile_cell(99),
    "engine p50": lambda r: milliseconds(r["engine_p50_ms"]),
    "decode p50": lambda r: milliseconds(r["stages_p50_ms"]["decode"]),
    "images/s": lambda r: f"{r['images_per_second']:.1f}",
    "top-5 %": lambda r: NOT_MEASURED if r["top5"] is None else f"{100 * r['top5']:.1f}",
    "flips": lambda r: "-" if r["flips"] is None else str(r["flips"]),
    "queries": lambda r: str(r["n"]),
    "MB": lambda r: f"{r['file_bytes'] / 1e6:.1f}",
    "file": lambda r: r["file"],
}


# Ages only a camera's frames have; the times of these rows leave out the waiting between the stages.
CAMERA_COLUMNS: dict[str, Cell] = {
    "bundle": COLUMNS["bundle"],
    "variant": COLUMNS["variant"],
    "age p50 ms": lambda r: milliseconds(r["camera"]["age_p50_ms"]),
    "age p95": lambda r: milliseconds(r["camera"]["age_p95_ms"]),
    "age p99": lambda r: milliseconds(r["camera"]["age_p99_ms"]),
    "frames/s offered": lambda r: str(r["camera"]["fps_offered"]),
    "answered": lambda r: str(r["camera"]["fps_answered"]),
    "dropped": lambda r: f"{r['camera']['dropped']} of {r['camera']['offered']}",
    "": COLUMNS[""],
    "p50 without waiting": COLUMNS["p50 ms"],
    "engine p50": COLUMNS["engine p50"],
    "top-1 % (95 %)": _top1,
    "source": lambda r: r["camera"]["source"],
    "file": COLUMNS["file"],
}


# Only where the machine told something of them.
POWER_COLUMNS: dict[str, Cell] = {
    "W": lambda r: milliseconds(r["power"]["mean_w"]),
    "mJ an image": lambda r: milliseconds(r["energy_mj"]),
    "power mode": lambda r: r["power_mode"],
}


def row_tables(rows: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Return one table a mode: latencies of different modes never share a column."""
    by_mode: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_mode.setdefault(row["mode"], []).append(row)
    return tuple(_table(mode, group) for mode, group in by_mode.items())


def _table(mode: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    told = any(
        r.get("energy_mj") is not None or r.get("power_mode", "unknown") != "unknown" for r in rows
    )
    columns = (COLUMNS if mode != "camera" else CAMERA_COLUMNS) | (POWER_COLUMNS if told else {})
    heading = (
        f"{HEADINGS.get(mode, mode)} (batch {', '.join(sorted({str(r['batch']) for r in rows}))})"
    )
    return Table(
        heading,
        tuple(columns),
        tuple(tuple(cell(r) for cell in columns.values()) for r in rows),
        tuple("; ".join(r["invalid_reasons"]) for r in rows),
    )


@dataclass(frozen=True)
class ClassTable:
    """What a bundle's INT8 changed by class, worst first; `largest` is the greatest change, and `unchanged` classes are only counted."""

    bundle: str
    variants: tuple[str, ...]
    changed: tuple[Mapping[str, Any], ...]
    largest: float
    unchanged: int


def class_tables(report: Mapping[str, Any]) -> tuple[ClassTable, ...]:
    """Return a table for each bundle whose classes were measured in both fp32 and int8."""
    tables = []
    for bundle, classes in report.get("per_class", {}).items():
        compared = [c for c in classes if c["change"] is not None]
        changed = sorted(
            (c for c in compared if c["change"] != 0), key=lambda c: (c["change"], c["label"])
        )
        if compared:
            largest = max((abs(c["change"]) for c in changed), default=0.0)
            tables.append(
                ClassTable(
                    bundle,
                    tuple(compared[0]["top1"]),
                    tuple(changed),
                    largest,
                    len(compared) - len(changed),
                )
            )
    return tuple(tables)


def flat(record: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Return a nested record as (name, text) pairs, e.g. `cpu.model`; empty values are left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            pairs.append(
                (
                    f"{prefix}{key}",
                    ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value),
                )
            )
    return tuple(pairs)
