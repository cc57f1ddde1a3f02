"""The sections of a report on early exits: how they were fitted, and what they did.

A median hides what exits save, so these sections have means. The plot of accuracy against latency
has medians, and leaves rows with early exits out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from finedge.bundle import Bundle
from finedge.early_exit import KEY as EXITS
from finedge.early_exit import MAX_EXITS
from finedge.runtime.report.change import Change95
from finedge.runtime.report.columns import NOT_MEASURED, percent
from finedge.runtime.report.verdict import points, ratio_text
from finedge.schema import Count, Share, Text, at_most, between, decode

Milliseconds = Annotated[float, between(0, 1e9, unit="ms")]
FITTED = (
    *("variant", "exit", "of the MACs %", "leaves from", "of the images %", "right there %"),
    *("answers lost", "gained", "lost at most % (95 %)"),
)
MEASURED = ("exit", "leaves from", "of the images %", "right there %", "of the timed frames %")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TakenExit:
    """An exit, or the end of the model, and what it did on the labelled images."""

    output: Text
    threshold: Share | None
    n: Count
    share: Share
    top1: Share | None


@dataclass(frozen=True)
class EarlyExitSection:
    """What report.json has of a row with early exits (`finedge.runtime.benchmark.results`).

    Attributes:
        timed_frames: the share of the timed frames that left at each exit and at the end.
        whole_mean_ms: the mean time of the same model without exits.
        share: the share of the labelled images that left early; None without labelled images.
        exits: each exit and the end; empty without labelled images.
        ece: the expected calibration error of their probabilities.
        against_whole: the change of top-1 from the same model without exits.
    """

    timed_frames: Annotated[Mapping[Text, Share], at_most(MAX_EXITS + 1)]
    whole_mean_ms: Milliseconds | None = None
    share: Share | None = None
    exits: Annotated[tuple[TakenExit, ...], at_most(MAX_EXITS + 1)] = ()
    ece: Share | None = None
    against_whole: Change95 = field(default_factory=Change95)


@dataclass(frozen=True)
class FittedExit:
    """An exit as `finedge calibrate` fitted it (`finedge.calib.held_out.exits.ExitFit`)."""

    output: Text
    threshold: Share | None
    n: Count = 0
    share: Share = 0.0
    lost: Count = 0
    gained: Count = 0
    lost_upper95: Share | None = None
    top1: Share | None = None


@dataclass(frozen=True)
class FittedSection:
    """The fitted exits of a bundle by variant, and the share of the MACs up to each exit."""

    macs: Annotated[Mapping[Text, Share], at_most(MAX_EXITS)] = field(default_factory=dict)
    variants: Annotated[
        Mapping[Text, Annotated[tuple[FittedExit, ...], at_most(MAX_EXITS)]], at_most(100)
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class ExitTable:
    """A heading with a sentence, and rows of cells for `columns`."""

    heading: str
    reason: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fitted_sections(bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """Return the section of each bundle whose exits were fitted, as plain data."""
    return {name: _fitted(bundle) for name, bundle in bundles.items() if bundle.calibration.exits}


def exit_tables(report: Row) -> tuple[ExitTable, ...]:
    """Return a table for each row with early exits, then one for each bundle's fitted exits."""
    measured = (_measured_table(row) for row in report["rows"] if row.get("early_exit"))
    fitted = (_fitted_table(*item) for item in report.get("exits", {}).items())
    return (*measured, *fitted)


def _fitted(bundle: Bundle) -> dict[str, Any]:
    """Return the plain data of a `FittedSection`; the record was checked by `calibration`."""
    segments = bundle.export.segments
    macs = {one.output: min(1.0, one.macs / max(1, segments.macs)) for one in segments.exits}
    exits = bundle.provenance["calibrate"][EXITS]
    return asdict(decode(FittedSection, {"macs": macs, "variants": exits}))


def _measured_table(row: Row) -> ExitTable:
    early = row["early_exit"]
    heading = f"Early exits: {row['bundle']} {row['variant']}, {row['mode']}"
    rows = tuple(_taken(one, early["timed_frames"]) for one in early["exits"])
    if not rows:
        rows = tuple(
            (name, *[NOT_MEASURED] * 3, percent(share))
            for name, share in early["timed_frames"].items()
        )
    return ExitTable(heading, " ".join(_sentences(row)), MEASURED, rows)


def _sentences(row: Row) -> Iterator[str]:
    early = row["early_exit"]
    mean_ms, whole_ms = row.get("mean_ms"), early["whole_mean_ms"]
    if mean_ms and whole_ms:
        times = f"The mean time is {mean_ms:.2f} ms, and {whole_ms:.2f} ms without early exits"
        yield f"{times}: {ratio_text(whole_ms, mean_ms)}."
    change = early["against_whole"]
    if change["top1_change"] is not None:
        text = points(change["top1_change"], change["top1_change95"], p=change["mcnemar_p"])
        yield f"{percent(early['share'])} % of the images leave early. The top-1 is {text}."
    if early["ece"] is not None:
        yield f"The calibration error of the probabilities is {early['ece']:.3f}."


def _taken(one: Row, timed: Mapping[str, float]) -> tuple[str, ...]:
    is_end = one["output"] == list(timed)[-1]
    threshold = "-" if is_end else _threshold(one["threshold"])
    shares = (one["share"], one["top1"], timed.get(one["output"]))
    return one["output"], threshold, *(percent(share) for share in shares)


def _fitted_table(bundle: str, section: Row) -> ExitTable:
    variants: Mapping[str, Sequence[Row]] = section["variants"]
    images = max((one["n"] for exits in variants.values() for one in exits), default=0)
    reason = (
        f"finedge calibrate fitted the thresholds on {images} held-out images, for each variant "
        "after INT8. An answer is lost where the whole model is right and the exit is wrong."
    )
    rows = tuple(
        (variant, one["output"], *_fitted_cells(one, section["macs"]))
        for variant, exits in variants.items()
        for one in exits
    )
    return ExitTable(f"How the exits were fitted: {bundle}", reason, FITTED, rows)


def _fitted_cells(one: Row, macs: Mapping[str, float]) -> tuple[str, ...]:
    return (
        percent(macs.get(one["output"])),
        _threshold(one["threshold"]),
        percent(one["share"]),
        percent(one["top1"]),
        str(one["lost"]),
        str(one["gained"]),
        percent(one["lost_upper95"]),
    )


def _threshold(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f}"
