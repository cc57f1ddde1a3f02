from __future__ import annotations

import numpy as np
import pytest

from finedge.measure import percentile
from finedge.runtime.sinks.live.camera import (
    BINS_PER_DECADE,
    DECADES,
    LOWEST_MS,
    WINDOW,
    CameraCounts,
    LatencyWindow,
    histogram,
)


def test_every_sample_is_in_the_bin_that_its_size_says() -> None:
    samples = np.random.default_rng(0).lognormal(2.0, 2.0, 1000).tolist()
    edges = LOWEST_MS * 10 ** (np.arange(DECADES * BINS_PER_DECADE + 1) / BINS_PER_DECADE)
    expected, _ = np.histogram(np.clip(samples, edges[0], np.nextafter(edges[-1], 0)), edges)
    assert histogram(samples)["counts"] == expected.tolist()


@pytest.mark.parametrize("samples", [[0.0], [1e-3], [1e9], [0.1], [9999.0]])
def test_no_sample_is_lost_beyond_the_ends(samples: list[float]) -> None:
    assert sum(histogram(samples)["counts"]) == 1


def test_percentiles_are_the_reports_and_null_for_few_samples() -> None:
    samples = [float(x) for x in range(200)]
    summary = histogram(samples)
    assert [summary["p50"], summary["p95"]] == [percentile(samples, 50), percentile(samples, 95)]
    assert summary["p99"] is None
    assert histogram([])["p50"] is None


def test_only_the_last_frames_are_kept_and_silences_add_nothing() -> None:
    latencies = LatencyWindow()
    silence = {"age_ms": None, "ms": dict.fromkeys(["decode", "preprocess", "infer", "post"])}
    for index in range(WINDOW + 5):
        latencies.add(
            {
                "age_ms": float(index),
                "ms": {"decode": None, "preprocess": 1.0, "infer": 2.0, "post": 3.0},
            }
        )
        latencies.add(silence)
    copied = latencies.copy()
    assert copied["age"] == [float(index) for index in range(5, WINDOW + 5)]
    assert (len(copied["decode"]), len(copied["infer"])) == (0, WINDOW)


@pytest.mark.parametrize(
    ("indices", "classified", "dropped"),
    [
        ([0, 1, 2], 3, 0),
        ([3, 4, 9], 3, 7),
        ([0, None, 1, None], 2, 0),
        ([5, 6, 0, 1], 4, 5),
        ([5, 2], 2, 7),
    ],
)
def test_gaps_are_counted_as_dropped_also_when_a_source_starts_again(
    indices: list[int | None], classified: int, dropped: int
) -> None:
    counts = CameraCounts()
    for index in indices:
        counts.add(index)
    assert (counts.classified, counts.dropped, counts.silences) == (
        classified,
        dropped,
        indices.count(None),
    )
