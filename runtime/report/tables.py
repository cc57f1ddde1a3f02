"""The tables of a report as rows of text, shared by Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finedge.measure import MIN_QUERIES

NOT_MEASURED = "n/a"
HEADINGS = {
    "single-stream": "Single-stream: one frame after the other",
    "offline": "Offline: batches back to back, for throughput",
    "camera": "Camera: frames come at their own rate and age until they are answered",
}

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Column:
    """What a column means, in a sentence, and how its cells are written; `text` is no number."""

    meaning: str
    cell: Cell
    text: bool = False


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


def milliseconds(value: float | None) -> str:
    """Return two decimals, or n/a."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def percentile_column(percent: int) -> Column:
    """Return the column of a latency percentile; `n/a (n<662)` where the sample is too small."""

    def cell(row: Mapping[str, Any]) -> str:
        value = row[f"p{percent}_ms"]
        return f"{value:.2f}" if value is not None else f"n/a (n<{MIN_QUERIES[percent]})"

    meaning = (
        f"{percent} % of the queries took at most this time, in ms. "
        f"The number needs {MIN_QUERIES[percent]} queries; with fewer there is n/a."
    )
    return Column(meaning, cell)


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


BUNDLE = Column("The bundle that was measured.", lambda r: r["bundle"], text=True)
VARIANT = Column(
    "The numbers that the model computes with: 32-bit float, 16-bit float or 8-bit integer.",
    lambda r: r["variant"],
    text=True,
)
MEDIAN = Column(
    "The median time of a query, in ms: half of the queries were faster. "
    "A query is one frame, or in offline mode a whole batch.",
    percentile_column(50).cell,
)
TOP1 = Column(
    "The share of images whose true class is the first answer, "
    "and the interval that holds the true share with 95 % confidence.",
    _top1,
)
STATUS = Column(
    "An INVALID row did not meet a condition of the run. Do not rely on its numbers.",
    lambda r: "valid" if r["valid"] else "INVALID",
    text=True,
)
ENGINE = Column(
    "The median time of the inference call alone, in ms.",
    lambda r: milliseconds(r["engine_p50_ms"]),
)
FILE = Column("The model file that ran.", lambda r: r["file"], text=True)

COLUMNS: dict[str, Column] = {
    "bundle": BUNDLE,
    "variant": VARIANT,
    "p50 ms": MEDIAN,
    "top-1 % (95 %)": TOP1,
    "against fp32 (95 %)": Column(
        "Top-1 minus the top-1 of fp32 on the same images, in percentage points.", _change
    ),
    "McNemar p": Column(
        "The probability of a difference this large if both variants were equally good. "
        "Below 0.05 the report calls it beyond chance.",
        lambda r: "-" if r["mcnemar_p"] is None else f"{r['mcnemar_p']:.2g}",
    ),
    "row": STATUS,
    "p90": percentile_column(90),
    "p95": percentile_column(95),
    "p99": percentile_column(99),
    "engine p50": ENGINE,
    "decode p50": Column(
        "The median time to decode one image file, in ms. It is not part of the other times.",
        lambda r: milliseconds(r["stages_p50_ms"]["decode"]),
    ),
    "images/s": Column(
        "Images answered in one second of measuring.", lambda r: f"{r['images_per_second']:.1f}"
    ),
    "top-5 %": Column(
        "The share of images whose true class is among the first five answers.",
        lambda r: NOT_MEASURED if r["top5"] is None else f"{100 * r['top5']:.1f}",
    ),
    "flips": Column(
        "Images whose first answer differs from that of fp32.",
        lambda r: "-" if r["flips"] is None else str(r["flips"]),
    ),
    "queries": Column("How many queries were recorded.", lambda r: str(r["n"])),
    "MB": Column(
        "The size of the model file in millions of bytes.",
        lambda r: f"{r['file_bytes'] / 1e6:.1f}",
    ),
    "file": FILE,
}


def _age_column(percent: int) -> Column:
    return Column(
        f"{percent} % of the frames were at most this old when they were answered, in ms.",
        lambda r: milliseconds(r["camera"][f"age_p{percent}_ms"]),
    )


# Only a camera's frames have an age. The times of these rows leave out the waiting between stages.
CAMERA_COLUMNS: dict[str, Column] = {
    "bundle": BUNDLE,
    "variant": VARIANT,
    "age p50 ms": _age_column(50),
    "age p95": _age_column(95),
    "age p99": _age_column(99),
    "frames/s offered": Column(
        "The rate at which frames came.", lambda r: str(r["camera"]["fps_offered"])
    ),
    "answered": Column("Frames answered a second.", lambda r: str(r["camera"]["fps_answered"])),
    "dropped": Column(
        "Frames without an answer: a newer one came while the model was busy.",
        lambda r: f"{r['camera']['dropped']} of {r['camera']['offered']}",
    ),
    "row": STATUS,
    "p50 without waiting": Column(
        "The median of preprocess + infer + post of a frame, in ms.", MEDIAN.cell
    ),
    "engine p50": ENGINE,
    "top-1 % (95 %)": TOP1,
    "source": Column("Where the frames came from.", lambda r: r["camera"]["source"], text=True),
    "file": FILE,
}


# Only where the machine reports one of them.
POWER_COLUMNS: dict[str, Column] = {
    "W": Column(
        "The mean power while measuring, in watts.", lambda r: milliseconds(r["power"]["mean_w"])
    ),
    "mJ an image": Column(
        "The energy of one image, in millijoules; idle power is included.",
        lambda r: milliseconds(r["energy_mj"]),
    ),
    "power mode": Column("The power mode of the board.", lambda r: r["power_mode"], text=True),
}


def row_tables(rows: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Return one table a mode: latencies of different modes never share a column."""
    by_mode: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_mode.setdefault(row["mode"], []).append(row)
    return tuple(_table(mode, group) for mode, group in by_mode.items())


def _table(mode: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = CAMERA_COLUMNS if mode == "camera" else COLUMNS
    if any(_has_power(row) for row in rows):
        columns = columns | POWER_COLUMNS
    batches = ", ".join(sorted({str(row["batch"]) for row in rows}))
    return Table(
        f"{HEADINGS.get(mode, mode)} (batch {batches})",
        tuple(columns),
        tuple(column.meaning for column in columns.values()),
        tuple(column.text for column in columns.values()),
        tuple(tuple(column.cell(row) for column in columns.values()) for row in rows),
        tuple("; ".join(row["invalid_reasons"]) for row in rows),
    )


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
