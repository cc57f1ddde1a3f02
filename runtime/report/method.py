"""How a report's rows were measured, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finedge.measure import MIN_QUERIES


def method_text(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how it was measured, in sentences, with the values of this run."""
    m, rows = report["method"], report["rows"]
    notes = "; ".join(dict.fromkeys(r["accuracy_note"] for r in rows if r["accuracy_note"]))
    sensors = "; ".join(
        dict.fromkeys(r["power"]["sensor"] for r in rows if r.get("energy_mj") is not None)
    )
    energy = (
        f"Power is the mean over a row's blocks as told by {sensors}; energy is that power over images/s, idle power included.",
    )
    has_camera = any(r["mode"] == "camera" for r in rows)
    camera = (
        "The age of a camera's frame is the wall time from its capture, or from when it was due in a replay, to its top-k on the host: waiting is part of it, "
        "and the headline stands beside it as p50 without waiting.",
    )
    return (
        "The headline is the wall time from a decoded uint8 frame in host memory to the top-k on the host: preprocess + infer + post. "
        "The engine alone (the inference call) and decoding the image file stand in their own columns and are never mixed into it.",
        f"{m['frames']} frames were rotated in a fixed shuffled order ({m['frames_from']}); none is blank or repeated back to back.",
        f"All rows were measured in one process, interleaved in blocks of {m['block_s']:g} s, {m['duration_s']:g} s for each row, after a warm-up of at least "
        f"{m['warm_up_s']:g} s each that lasts until the median settles. The first {m['rewarm_s']:g} s of a block are not recorded, "
        "because the model before it filled the caches.",
        *(camera if has_camera else ()),
        *(energy if sensors else ()),
        f"CPU threads: {m['threads'] or 'all physical cores'}, spinning while they wait{', but not in camera mode' if has_camera else ''}.",
        "Percentiles are nearest rank over all samples, nothing removed. One is shown only when the sample supports it at 99 % confidence "
        f"({', '.join(f'p{p:g}: {n}' for p, n in MIN_QUERIES.items())} queries).",
        "Accuracy is of the same open sessions over the whole split, with 95 % Wilson intervals; changes against fp32 are paired over the same images: "
        "interval after Agresti and Min (2005), exact McNemar test."
        + (f" In this run: {notes}." if notes else ""),
        "A row is INVALID when a percentile that was asked for is not supported, a clock fell by more than 5 % or throttling was reported, "
        "or top-1 is below the gate"
        + (f" ({m['gate']:g})." if m["gate"] is not None else " (none was set in this run)."),
    )
