from __future__ import annotations

import numpy as np
import pytest

from finedge.measure import percentile
from finedge.runtime.stream.percentiles import STEP, RunPercentiles

ROUNDING = 1e-9


@pytest.mark.parametrize("scale", [0.01, 20.0, 1e5])
def test_a_percentile_is_the_nearest_rank_or_at_most_one_bin_above(scale: float) -> None:
    samples = (scale * np.random.default_rng(0).lognormal(0, 1, 2000)).tolist()
    percentiles = RunPercentiles()
    for sample in samples:
        percentiles.add(sample)
    assert percentiles.n == 2000
    for percent in (50, 90, 99, 99.9, 100):
        exact = percentile(samples, percent)
        lowest, highest = exact * (1 - ROUNDING), exact * STEP * (1 + ROUNDING)
        assert lowest <= percentiles.percentile(percent) <= highest


def test_a_percentile_of_too_few_samples_is_not_given() -> None:
    percentiles = RunPercentiles()
    for _ in range(661):
        percentiles.add(10.0)
    assert percentiles.text(99) == "n/a (n<662)"
    percentiles.add(10.0)
    assert percentiles.text(99) in ("10", "10.1")


@pytest.mark.parametrize("ms", [-5.0, 0.0, 1e12])
def test_a_duration_out_of_range_is_counted_at_the_edge(ms: float) -> None:
    percentiles = RunPercentiles()
    percentiles.add(ms)
    assert (percentiles.n, percentiles.percentile(50) > 0) == (1, True)


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        RunPercentiles().percentile(50)
