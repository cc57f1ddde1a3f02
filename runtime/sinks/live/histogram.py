"""The last durations of each stage, as a histogram over a logarithmic axis and as percentiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from finedge.measure import MIN_QUERIES, percentile, supported

WINDOW = 1024  # frames; enough for a p99 at 99 % confidence
STAGES = ("age", "decode", "preprocess", "infer", "post")
LOWEST_MS, DECADES, BINS_PER_DECADE = 0.1, 5, 8
PERCENTS = (50, 95, 99)


class Latencies:
    """The last `WINDOW` durations of each stage, in ms; `age` is from capture to answer. Not locked: its owner is."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW) for stage in STAGES}

    def add(self, record: dict[str, Any]) -> None:
        """Take the durations of one classify line; what is null is left out."""
        for stage, samples in self._samples.items():
            ms = record.get("age_ms") if stage == "age" else record.get("ms", {}).get(stage)
            if ms is not None:
                samples.append(float(ms))

    def copy(self) -> dict[str, list[float]]:
        """Return the samples of each stage."""
        return {stage: list(samples) for stage, samples in self._samples.items()}


def histogram(samples: Sequence[float]) -> dict[str, Any]:
    """Return `n`, `counts` of each bin, and the percentiles in ms, null where the sample does not support one (see `finedge.measure`).

    Bin i holds [0.1 * 10^(i/8), 0.1 * 10^((i+1)/8)) ms; the first and the last also hold what lies beyond.
    """
    bins = DECADES * BINS_PER_DECADE
    places = np.floor(np.log10(np.maximum(samples, 1e-9) / LOWEST_MS) * BINS_PER_DECADE)
    counts = np.bincount(np.clip(places, 0, bins - 1).astype(int), minlength=bins)
    known = {
        f"p{p}": round(percentile(samples, p), 3) if supported(p, len(samples)) else None
        for p in PERCENTS
    }
    return {"n": len(samples), "counts": counts.tolist(), **known}


def axis() -> dict[str, Any]:
    """Return what a reader needs to draw `counts`, and how many samples each percentile needs."""
    return {
        "lowest_ms": LOWEST_MS,
        "decades": DECADES,
        "bins_per_decade": BINS_PER_DECADE,
        "needs": {f"p{p}": MIN_QUERIES[p] for p in PERCENTS},
    }
