"""The verdict in words: what INT8 buys and costs, and which model wins, as far as the sample can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]
ALPHA = 0.05


@dataclass(frozen=True)
class Sentence:
    """What matters, then what supports it."""

    lead: str
    rest: str = ""
    warning: bool = False

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.lead} {self.rest}".strip()


def verdicts(report: Mapping[str, Any]) -> tuple[Sentence, ...]:
    """Return the sentences that open a report: what may not be believed, then each variant against fp32, then models against the first."""
    rows = latency_rows(report["rows"])
    variants = [s for row in rows if row["variant"] != "fp32" for s in _against_fp32(row, rows)]
    alone = [_alone(r) for r in rows if r["variant"] == "fp32"] if not variants else []
    return (
        *_invalid(report["rows"]),
        *variants,
        *alone,
        *(_between(c) for c in report.get("comparisons", ())),
    )


def latency_rows(rows: Rows) -> tuple[Mapping[str, Any], ...]:
    """Return the single-stream rows, or all where the run had none."""
    single = tuple(r for r in rows if r["mode"] == "single-stream")
    return single or tuple(rows)


def speed(slower_ms: float | None, faster_ms: float | None) -> str:
    """Return how the second compares with the first at p50: `2.9x faster`, `1.2x slower`, `as fast`."""
    if not slower_ms or not faster_ms:
        return "not comparable in speed (too few queries)"
    ratio = slower_ms / faster_ms
    if 0.995 < ratio < 1.005:
        return "as fast at p50"
    return f"{ratio:.2f}x faster at p50" if ratio > 1 else f"{1 / ratio:.2f}x slower at p50"


def points(change: float, interval: Sequence[float], p: float) -> str:
    """Return an accuracy change in words, e.g. `0.3 points lower (95 % interval -0.6..+0.1; not beyond chance, McNemar p = 0.40)`."""
    way = (
        "unchanged"
        if abs(change) < 0.0005
        else f"{abs(change):.1%}".replace("%", " points ") + ("higher" if change > 0 else "lower")
    )
    low, high = (f"{100 * x:+.1f}" for x in interval)
    beyond = "beyond chance" if p < ALPHA else "not beyond chance"
    return f"{way} (95 % interval {low}..{high}; {beyond}, McNemar {p_text(p)})"


def p_text(p: float) -> str:
    """Return `p = 0.40` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"


def _invalid(rows: Rows) -> tuple[Sentence, ...]:
    bad = sum(not r["valid"] for r in rows)
    verb = "is" if bad == 1 else "are"
    return (
        (
            Sentence(
                f"{bad} of {len(rows)} rows {verb} INVALID:",
                "shown and marked below; no claim should rest on such a row.",
                warning=True,
            ),
        )
        if bad
        else ()
    )


def _against_fp32(row: Mapping[str, Any], rows: Rows) -> tuple[Sentence, ...]:
    base = next(
        (
            r
            for r in rows
            if r["bundle"] == row["bundle"] and r["variant"] == "fp32" and r["mode"] == row["mode"]
        ),
        None,
    )
    if base is None:
        return (_alone(row),)
    lead = (
        f"{row['bundle']}: {row['variant'].upper()} is {speed(base['p50_ms'], row['p50_ms'])}"
        + (" (INVALID row)" if not row["valid"] or not base["valid"] else "")
    )
    if row["top1_change"] is None:
        return (Sentence(f"{lead};", "its accuracy was not measured."),)
    flips = f"{row['flips']} of {row['accuracy_n']} answers changed"
    return (
        Sentence(
            lead,
            f"and its top-1 is {points(row['top1_change'], row['top1_change95'], row['mcnemar_p'])}; {flips}.",
        ),
    )


def _alone(row: Mapping[str, Any]) -> Sentence:
    """Return the plain numbers of a row that has nothing to be compared with."""
    time = (
        "too few queries for a median"
        if row["p50_ms"] is None
        else f"{row['p50_ms']:.2f} ms at p50"
    )
    if row["top1"] is None:
        return Sentence(
            f"{row['bundle']}: {row['variant'].upper()} takes {time};",
            "its accuracy was not measured.",
        )
    low, high = row["wilson95"]
    return Sentence(
        f"{row['bundle']}: {row['variant'].upper()} takes {time},",
        f"top-1 {100 * row['top1']:.1f} % (95 % interval {100 * low:.1f}..{100 * high:.1f}).",
    )


def _between(comparison: Mapping[str, Any]) -> Sentence:
    first, second = comparison["first"], comparison["second"]
    change, interval, p = (comparison[k] for k in ("top1_change", "top1_change95", "mcnemar_p"))
    answer = "yes" if p < ALPHA and change > 0 else "no"
    speeds = speed(*comparison["p50_ms"])
    return Sentence(
        f"{second} beats {first} beyond chance at {comparison['variant'].upper()}: {answer};",
        f"its top-1 is {points(change, interval, p)}, and it is {speeds}.",
    )
