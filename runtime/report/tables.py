"""The tables of a report as rows of text, shared by Markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from finedge.runtime.report.columns import (
    CAMERA_COLUMNS,
    COLUMNS,
    EXIT_COLUMNS,
    FIND_COLUMNS,
    PEAK_COLUMNS,
    POWER_COLUMNS,
)

HEADINGS = {
    "single-stream": "Single-stream: one frame after the other",
    "offline": "Offline: batches back to back, for throughput",
    "camera": "Camera: frames come at their own rate and age until they are answered",
}
AFTER_VARIANT = 2
AFTER_MEDIAN = 3  # the mean time stands after bundle, variant and median


@dataclass(frozen=True)
class Table:
    """A heading, column titles and rows of cells.

    Attributes:
        heading: what the rows have in common.
        columns: the title of each column.
        meanings: a sentence for each column.
        text: whether a column holds text, which is aligned to the left.
        rows: the cells.
        reasons: why a row is INVALID, empty where it is valid.
    """

    heading: str
    columns: tuple[str, ...]
    meanings: tuple[str, ...]
    text: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]


def row_tables(rows: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Return one table a mode: latencies of different modes never share a column."""
    by_mode: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_mode.setdefault(row["mode"], []).append(row)
    return tuple(_table(mode, group) for mode, group in by_mode.items())


def _table(mode: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = CAMERA_COLUMNS if mode == "camera" else COLUMNS
    if any(row.get("early_exit") for row in rows):
        first = dict(islice(columns.items(), AFTER_MEDIAN))
        columns = first | EXIT_COLUMNS | columns
    if any((row.get("camera") or {}).get("find") for row in rows):
        first = dict(islice(columns.items(), AFTER_VARIANT))
        columns = first | FIND_COLUMNS | columns
    if any(_has_power(row) for row in rows):
        columns = columns | POWER_COLUMNS
    if any(row.get("int8_peak") for row in rows):
        columns = columns | PEAK_COLUMNS
    batches = ", ".join(sorted({str(row["batch"]) for row in rows}))
    return Table(
        f"{HEADINGS.get(mode, mode)} (batch {batches}{looks_text(rows)})",
        tuple(columns),
        tuple(column.meaning for column in columns.values()),
        tuple(column.text for column in columns.values()),
        tuple(tuple(column.cell(row) for column in columns.values()) for row in rows),
        tuple("; ".join(row["invalid_reasons"]) for row in rows),
    )


def looks_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ", two looks a frame" for rows of `--look-twice`, else nothing."""
    return ", two looks a frame" if any(row.get("looks", 1) > 1 for row in rows) else ""


def _has_power(row: Mapping[str, Any]) -> bool:
    return row.get("energy_mj") is not None or row.get("power_mode", "unknown") != "unknown"


def meanings(tables: Iterable[Table]) -> dict[str, str]:
    """Return what each column of some tables means, by its title."""
    return {
        title: meaning
        for table in tables
        for title, meaning in zip(table.columns, table.meanings, strict=True)
    }


@dataclass(frozen=True)
class ClassTable:
    """What INT8 changed in a bundle, class by class.

    Attributes:
        bundle: the bundle's name.
        variants: the variants whose top-1 is known.
        changed: the classes that changed, the worst first.
        largest: the greatest change, as a share.
        unchanged: how many classes did not change.
    """

    bundle: str
    variants: tuple[str, ...]
    changed: tuple[Mapping[str, Any], ...]
    largest: float
    unchanged: int


def class_tables(report: Mapping[str, Any]) -> tuple[ClassTable, ...]:
    """Return a table for each bundle whose classes were measured in both fp32 and int8."""
    bundles = report.get("per_class", {}).items()
    compared = {
        bundle: [entry for entry in classes if entry["change"] is not None]
        for bundle, classes in bundles
    }
    return tuple(_class_table(bundle, classes) for bundle, classes in compared.items() if classes)


def _class_table(bundle: str, classes: Sequence[Mapping[str, Any]]) -> ClassTable:
    changed = sorted(
        (entry for entry in classes if entry["change"] != 0),
        key=lambda entry: (entry["change"], entry["label"]),
    )
    largest = max((abs(entry["change"]) for entry in changed), default=0.0)
    variants = tuple(classes[0]["top1"])
    return ClassTable(bundle, variants, tuple(changed), largest, len(classes) - len(changed))


def flat(record: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Return a nested record as (name, text) pairs, e.g. `cpu.model`; empty values are left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            pairs += [(f"{prefix}{key}", ", ".join(map(str, value)))] if value else []
        elif value not in (None, ""):
            pairs.append((f"{prefix}{key}", str(value)))
    return tuple(pairs)
