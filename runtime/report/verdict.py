"""The verdict in words: what INT8 gains and costs, and which model is better.

It claims no more than the sample supports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finedge.runtime.early_exit.record import titled

Row = Mapping[str, Any]
Rows = Sequence[Row]
ALPHA = 0.05  # a p-value below it is "beyond chance"
SAME_SPEED = (0.995, 1.005)  # ratios that two decimals show as 1.00
NO_CHANGE = 0.0005  # a change of top-1 below it is shown as 0.0 points


@dataclass(frozen=True)
class Sentence:
    """The claim, then its evidence."""

    lead: str
    rest: str = ""
    warning: bool = False

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.lead} {self.rest}".strip()


def verdicts(report: Mapping[str, Any]) -> tuple[Sentence, ...]:
    """Return the sentences that open a report.

    First how many rows are INVALID, then each variant compared with fp32, then what a finder costs
    a camera, then what `auto` ran there and why, then each model with the first one, also with
    early exits.
    """
    rows = latency_rows(report["rows"])
    variants = tuple(_variant(row, rows) for row in rows if row["variant"] != "fp32")
    alone = () if variants else tuple(_alone(row) for row in rows)
    between = tuple(_between(comparison) for comparison in report.get("comparisons", ()))
    choices = tuple(_choice(*choice) for choice in report.get("choices", {}).items())
    finding = tuple(_finding(row, report["rows"]) for row in report["rows"] if _finder(row))
    return (*_invalid(report["rows"]), *variants, *alone, *finding, *choices, *between)


def latency_rows(rows: Rows) -> tuple[Row, ...]:
    """Return the single-stream rows, or all where the run had none.

    Rows with early exits are left out, because their median hides what exits save. So are those
    with a finder: their frames have several things, or none.
    """
    whole = tuple(row for row in rows if not (row.get("early_exit") or _finder(row)))
    single = tuple(row for row in whole if row["mode"] == "single-stream")
    return single or whole


def speed(slower_ms: float | None, faster_ms: float | None) -> str:
    """Return how the second compares with the first in the median.

    >>> speed(30.0, 10.0)
    '3.00x faster at p50'
    """
    if not slower_ms or not faster_ms:
        return "not comparable in speed (too few queries)"
    return f"{ratio_text(slower_ms, faster_ms)} at p50"


def ratio_text(slower_ms: float, faster_ms: float) -> str:
    """Return how two times compare.

    >>> ratio_text(30.0, 10.0)
    '3.00x faster'
    """
    ratio = slower_ms / faster_ms
    if SAME_SPEED[0] < ratio < SAME_SPEED[1]:
        return "as fast"
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def points(change: float, interval: Sequence[float], *, p: float) -> str:
    """Return an accuracy change in words.

    >>> points(-0.003, (-0.006, 0.001), p=0.4)
    '0.3 points lower (95 % interval -0.6..+0.1; not beyond chance, McNemar p = 0.40)'
    """
    direction = "higher" if change > 0 else "lower"
    size = f"{100 * abs(change):.1f} points {direction}"
    if abs(change) < NO_CHANGE:
        size = "unchanged"
    low, high = (f"{100 * bound:+.1f}" for bound in interval)
    beyond = "beyond chance" if p < ALPHA else "not beyond chance"
    return f"{size} (95 % interval {low}..{high}; {beyond}, McNemar {p_text(p)})"


def p_text(p: float) -> str:
    """Return `p = 0.40` or `p < 0.001`."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"


def _invalid(rows: Rows) -> tuple[Sentence, ...]:
    count = sum(not row["valid"] for row in rows)
    if not count:
        return ()
    lead = f"{count} of {len(rows)} rows {'is' if count == 1 else 'are'} INVALID."
    rest = "They are marked below, with the reason. No claim should rest on such a row."
    return (Sentence(lead, rest, warning=True),)


def _variant(row: Row, rows: Rows) -> Sentence:
    """Compare a row with fp32 of the same bundle in the same mode."""
    place = (row["bundle"], row["mode"])
    base = next(
        (r for r in rows if (r["bundle"], r["mode"]) == place and r["variant"] == "fp32"), None
    )
    if base is None:
        return _alone(row)
    lead = f"{_name(row)} is {speed(base['p50_ms'], row['p50_ms'])}"
    if not (row["valid"] and base["valid"]):
        lead += " (INVALID row)"
    if row["top1_change"] is None:
        return Sentence(f"{lead};", "its accuracy was not measured.")
    change = points(row["top1_change"], row["top1_change95"], p=row["mcnemar_p"])
    flips = f"{row['flips']} of {row['accuracy_n']} answers changed"
    return Sentence(lead, f"and its top-1 is {change}; {flips}.")


def _finder(row: Row) -> str | None:
    return (row.get("camera") or {}).get("find")


def _finding(row: Row, rows: Rows) -> Sentence:
    """Say how a finder changes the age of frames, or what a scene of its own costs."""
    camera, early = row["camera"], bool(row.get("early_exit"))
    name = f"{titled(row['bundle'], early)}: {row['variant'].upper()} with {camera['find']}"
    found = f"finding takes {_ms(camera['find_p50_ms'])} at p50."
    base = next(
        (
            other["camera"]
            for other in rows
            if other.get("camera")
            and not _finder(other)
            and (other["bundle"], other["variant"]) == (row["bundle"], row["variant"])
            and bool(other.get("early_exit")) == early
            and other["camera"]["source"] == camera["source"]
        ),
        None,
    )
    # A short run has too few frames for its age.
    if base is None or None in (camera["age_p95_ms"], base["age_p95_ms"]):
        return Sentence(f"{name} uses {_core(camera)}", f"on {camera['source']}; {found}")
    lead = f"{name} answers 95 % of the frames within {_ms(camera['age_p95_ms'])}"
    return Sentence(lead, f"of their capture, and without it {_ms(base['age_p95_ms'])}; {found}")


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f} ms"


def _core(camera: Row) -> str:
    share = camera.get("core_share")
    return "n/a" if share is None else f"{100 * share:.1f} % of one core"


def _choice(bundle: str, choice: Row) -> Sentence:
    """Say what `auto` ran on the machine of the benchmark, and why."""
    lead = f"{bundle}: auto runs {choice['variant'].upper()} on this machine."
    return Sentence(lead, f"{choice['reason']}.")


def _alone(row: Row) -> Sentence:
    """Return the plain numbers of a row that has nothing to be compared with."""
    time = "too few queries for a median"
    if row["p50_ms"] is not None:
        time = f"{row['p50_ms']:.2f} ms at p50"
    lead = f"{_name(row)} takes {time}"
    if row["top1"] is None:
        return Sentence(f"{lead};", "its accuracy was not measured.")
    low, high = (f"{100 * bound:.1f}" for bound in row["wilson95"])
    return Sentence(f"{lead},", f"top-1 {100 * row['top1']:.1f} % (95 % interval {low}..{high}).")


def _name(row: Row) -> str:
    return f"{row['bundle']}: {row['variant'].upper()}"


def _between(comparison: Mapping[str, Any]) -> Sentence:
    """Say whether the second of two bundles is more accurate than the first."""
    early_exit = comparison.get("early_exit", False)
    first, second = comparison["first"], titled(comparison["second"], early_exit)
    change, interval, p = (comparison[k] for k in ("top1_change", "top1_change95", "mcnemar_p"))
    claim = "is not shown to be more accurate than"
    if p < ALPHA:
        claim = "is more accurate than" if change > 0 else "is less accurate than"
    variant = comparison["variant"].upper()
    speeds = _mean_speed(*comparison["mean_ms"]) if early_exit else speed(*comparison["p50_ms"])
    return Sentence(
        f"{second} {claim} {first} at {variant}.",
        f"Its top-1 is {points(change, interval, p=p)}, and it is {speeds}.",
    )


def _mean_speed(slower_ms: float | None, faster_ms: float | None) -> str:
    if not slower_ms or not faster_ms:
        return "not comparable in speed"
    return f"{ratio_text(slower_ms, faster_ms)} in the mean"
