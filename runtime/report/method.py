"""How a report's rows were measured, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finedge.measure import MIN_QUERIES

Rows = Sequence[Mapping[str, Any]]


def method_text(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how it was measured, a paragraph each, with the values of this run."""
    method, rows = report["method"], report["rows"]
    return (
        "The headline time is the wall time from a decoded uint8 frame in host memory to the top-k "
        "on the host. It is preprocess + infer + post. "
        "The inference call alone and the decoding of the image file have columns of their own.",
        f"{method['frames']} frames were rotated in a fixed order "
        f"({method['frames_from']}). No frame is blank, and none comes twice in a row.",
        "All rows were measured in one process, in turn, "
        f"in blocks of {method['block_s']:g} s, {method['duration_s']:g} s for each row. "
        f"Each row had a warm-up of at least {method['warm_up_s']:g} s, "
        "which lasts until the median settles. "
        f"The first {method['rewarm_s']:g} s of a block are not recorded, "
        "because the model before it filled the caches.",
        *_camera(rows),
        *_looks(rows),
        *_energy(rows),
        _threads(method, rows),
        "Percentiles are nearest rank over all samples; no sample was removed. "
        "A percentile is shown only if the sample supports it at 99 % confidence "
        f"({', '.join(f'p{p:g}: {n}' for p, n in MIN_QUERIES.items())} queries).",
        "Accuracy was measured with the same open sessions over the whole split, "
        "with 95 % Wilson intervals. "
        "Changes from fp32 are paired over the same images: "
        "interval after Agresti and Min (2005), exact McNemar test." + _notes(rows),
        _invalid(method),
    )


def _camera(rows: Rows) -> tuple[str, ...]:
    if not any(row["mode"] == "camera" for row in rows):
        return ()
    return (
        "The age of a camera's frame is the wall time from its capture to its top-k on the host. "
        "In a replay it starts when the frame was due. "
        "Waiting is part of the age; p50 without waiting has a column of its own.",
        *_finding(rows),
    )


def _finding(rows: Rows) -> tuple[str, ...]:
    if not any((row.get("camera") or {}).get("find") for row in rows):
        return ()
    return (
        "With a finder, the crops of the things in a frame are classified, tracked, and made into "
        "visits, as finedge classify does. Rows with and without it had the same frames.",
    )


def _looks(rows: Rows) -> tuple[str, ...]:
    if not any(row.get("looks", 1) > 1 for row in rows):
        return ()
    return (
        "Each frame was looked at twice: the answer is the mean of the whole frame and of the part "
        "at the peak of the map. Times and accuracies are of both looks together.",
    )


def _energy(rows: Rows) -> tuple[str, ...]:
    measured = (row for row in rows if row.get("energy_mj") is not None)
    sensors = "; ".join(dict.fromkeys(row["power"]["sensor"] for row in measured))
    if not sensors:
        return ()
    return (
        f"Power is the mean over a row's blocks, reported by {sensors}. "
        "Energy is that power divided by images/s; idle power is included.",
    )


def _threads(method: Mapping[str, Any], rows: Rows) -> str:
    text = f"CPU threads: {method['threads'] or 'all physical cores'}. They spin while they wait"
    return f"{text}, except in camera mode." if _camera(rows) else f"{text}."


def _notes(rows: Rows) -> str:
    notes = "; ".join(dict.fromkeys(row["accuracy_note"] for row in rows if row["accuracy_note"]))
    return f" In this run: {notes}." if notes else ""


def _invalid(method: Mapping[str, Any]) -> str:
    gate = method["gate"]
    return (
        "A row is INVALID if the sample does not support a requested percentile, "
        "if a clock fell by more than 5 %, or if throttling was reported. It is also INVALID "
        f"if top-1 is below the gate ({'none was set' if gate is None else f'{gate:g}'})."
    )
