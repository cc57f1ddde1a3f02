"""The columns of a report's tables: what each means, in a sentence, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finedge.measure import MIN_QUERIES
from finedge.runtime.early_exit.record import titled

NOT_MEASURED = "n/a"

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Column:
    """What a column means, in a sentence, and how its cells are written; `text` is no number."""

    meaning: str
    cell: Cell
    text: bool = False


def milliseconds(value: float | None) -> str:
    """Return two decimals, or n/a."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal, or n/a."""
    return NOT_MEASURED if share is None else f"{100 * share:.1f}"


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


BUNDLE = Column(
    "The bundle that was measured.", lambda r: titled(r["bundle"], r.get("early_exit")), text=True
)
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
        lambda r: percent(r["top5"]),
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


def _idle(camera: Mapping[str, Any]) -> str:
    if not (camera.get("find") and camera.get("answered")):
        return "-"
    return f"{100 * camera['idle'] / camera['answered']:.1f}"


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
    "core %": Column(
        "CPU time of the process as a share of one core. What the source computes counts too: "
        "decoding, or the rendering of test://.",
        lambda r: percent(r["camera"].get("core_share")),
    ),
    "row": STATUS,
    "p50 without waiting": Column(
        "The median of preprocess + infer + post of a frame, in ms. With a finder, finding counts "
        "too.",
        MEDIAN.cell,
    ),
    "engine p50": ENGINE,
    "top-1 % (95 %)": TOP1,
    "source": Column("Where the frames came from.", lambda r: r["camera"]["source"], text=True),
    "file": FILE,
}


# Only where a row of camera mode has a finder.
FIND_COLUMNS: dict[str, Column] = {
    "finder": Column(
        "What finds the things in a frame; none: the whole frame is classified.",
        lambda r: r["camera"].get("find") or "none",
        text=True,
    ),
    "find p50": Column(
        "The median time of finding in a frame, in ms.",
        lambda r: milliseconds(r["camera"].get("find_p50_ms")),
    ),
    "find p95": Column(
        "95 % of the frames took at most this time for finding, in ms.",
        lambda r: milliseconds(r["camera"].get("find_p95_ms")),
    ),
    "idle %": Column(
        "The share of the answered frames in which nothing was found. They are not classified.",
        lambda r: _idle(r["camera"]),
    ),
}


# Only where an INT8 row has it.
PEAK_COLUMNS: dict[str, Column] = {
    "INT8 peak %": Column(
        "The multiply-accumulates a second of the inference call, as a share of the fastest INT8 "
        "product that ONNX Runtime reached on this CPU with as many threads.",
        lambda r: f"{100 * r['int8_peak']['share']:.0f}" if r.get("int8_peak") else "-",
    ),
}

# Only where a row has early exits.
EXIT_COLUMNS: dict[str, Column] = {
    "mean ms": Column(
        "The mean time of a query, in ms. With early exits read the mean: some frames are fast and "
        "some are slow, and the median is one of them.",
        lambda r: milliseconds(r.get("mean_ms")),
    ),
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
