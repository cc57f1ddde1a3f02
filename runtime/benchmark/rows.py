"""A row of report.json: one variant of one bundle in one mode, and whether it is valid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finedge.measure import MIN_QUERIES, percentile, supported

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class BenchmarkRow:
    """One variant of one bundle in one mode; None: it was not, or could not be, measured.

    Times are wall milliseconds of a query of `batch` frames, from decoded uint8 frames in host
    memory to the top-k on the host. Where a session keeps two batches in flight (offline on a GPU),
    they are the times from one answer to the next.

    Attributes:
        n: the number of queries.
        p50_bounds99_ms: the 99 % bounds of the median.
        engine_p50_ms: the inference call alone; None where it overlaps with other work.
        stages_p50_ms: the median of each stage; decoding of the image file is per image and is in
            no other number.
        top1, top5, wilson95: shares of `accuracy_n` images.
        top1_change, top1_change95, mcnemar_p, flips, gained, lost: compared with fp32 of the same
            bundle on the same images; `flips` got another top-1.
        clocks: the fastest core's clock in MHz before and after, its fall as a share, the same of
            the GPU for a row that ran on one, and whether clocks were locked.
        power: the mean power in W over the blocks, the sensor, and the number of its readings.
        energy_mj: that power over `images_per_second`: millijoules a frame of what the sensor
            measures, idle power included.
        throttled: true, false or "unknown".
        int8_peak: `gmacs_per_s` of the inference call, and its share of this CPU's measured INT8
            peak. Only INT8 rows of ONNX Runtime on the CPU have it, and not in camera mode.
        camera: only in camera mode. There the times are preprocess + infer + post of each answered
            frame. `camera` has the source, `fps_offered`, `fps_answered`, and the frames offered,
            answered, dropped and `missed` while recording; a replay could not offer the missed ones
            in time. `age_p50_ms` to `age_p99_ms` and `age_max_ms` are from capture to top-k,
            waiting included. `core_share` is CPU time of the process over wall time. `find` names
            the finder, with `find_p50_ms` and `find_p95_ms`; "infer" is then of all crops of a
            frame, the times include finding, and `idle` frames, in which nothing was found, reach
            no model.
        mean_ms: the mean of the times. With early exits the median hides what they save.
        early_exit: only in rows with early exits, and None in the others: the thresholds, the
            share and the accuracy of each exit on the labelled images
            (`finedge.runtime.early_exit.record`), `ece`, the expected calibration error of their
            probabilities, the shares among the timed frames, `whole_mean_ms`, the mean time of
            the same model without exits, and what the exits change against it. Changes from fp32
            are from fp32 with early exits.
        looks: 2 where a part of each frame was classified again (`finedge.runtime.look_twice`): all
            times and accuracies are then of both looks.
    """

    bundle: str
    model: str
    backbone: str
    variant: str
    file: str
    file_bytes: int
    digest: str
    backend: str
    device: str
    precision: str
    batch: int
    mode: str
    n: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p50_bounds99_ms: tuple[float, float] | None
    max_ms: float
    engine_p50_ms: float | None
    stages_p50_ms: Mapping[str, float | None]
    images_per_second: float
    top1: float | None
    top5: float | None
    wilson95: tuple[float, float] | None
    accuracy_n: int
    accuracy_note: str
    top1_change: float | None
    top1_change95: tuple[float, float] | None
    mcnemar_p: float | None
    flips: int | None
    gained: int | None
    lost: int | None
    clocks: Mapping[str, Any]
    power_mode: str
    power: Mapping[str, Any]
    energy_mj: float | None
    throttled: bool | str
    valid: bool
    invalid_reasons: tuple[str, ...]
    camera: Mapping[str, Any] | None = None
    int8_peak: Mapping[str, Any] | None = None
    mean_ms: float | None = None
    early_exit: Mapping[str, Any] | None = None
    looks: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        return asdict(self)


def latency_fields(samples_ms: Sequence[float]) -> dict[str, Any]:
    """Return n, the percentiles, the 99 % bounds of the median, and the slowest query.

    A percentile that the sample does not support is None.
    """
    n = len(samples_ms)
    percentiles = {f"p{p}_ms": percentile_or_none(samples_ms, p) for p in PERCENTILES}
    return {
        "n": n,
        **percentiles,
        "p50_bounds99_ms": median_bounds99(samples_ms),
        "max_ms": _rounded(max(samples_ms)),
        "mean_ms": _rounded(sum(samples_ms) / n),
    }


def median_bounds99(samples_ms: Sequence[float]) -> tuple[float, float] | None:
    """Return two measured values that enclose the true median at 99 % confidence.

    None for too few samples. It is the binomial order-statistic interval with the normal
    approximation: ranks n/2 -+ 2.576 sqrt(n)/2. Queries of one run are not independent, so drift of
    the whole machine is not in it.
    """
    n = len(samples_ms)
    if not supported(50, n):
        return None
    ordered, half = sorted(samples_ms), 2.576 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return _rounded(ordered[low]), _rounded(ordered[high])


def percentile_or_none(samples_ms: Sequence[float], percent: int) -> float | None:
    """Return a percentile, a measured value, or None where there are too few samples for it."""
    is_supported = supported(percent, len(samples_ms))
    return _rounded(percentile(samples_ms, percent)) if is_supported else None


def median_or_none(samples_ms: Sequence[float]) -> float | None:
    """Return the median, a measured value, or None where there are too few samples for one."""
    return percentile_or_none(samples_ms, 50)


def unsupported(percents: Sequence[float], n: int) -> tuple[str, ...]:
    """Return a reason for each requested percentile that `n` queries cannot support."""
    return tuple(
        f"p{p:g} was asked for: needs {MIN_QUERIES[p]} queries, has {n}"
        for p in percents
        if not supported(p, n)
    )


def _rounded(ms: float) -> float:
    return round(ms, 4)
