from __future__ import annotations

import numpy as np
import pytest

from finedge.measure import percentile
from finedge.runtime.stream.histogram import STEP, Histogram

ROUNDING = 1e-9


@pytest.mark.parametrize("scale", [0.01, 20.0, 1e5])
def test_a_percentile_is_never_below_the_nearest_rank_and_at_most_one_bin_above(
    scale: float,
) -> None:
    samples, histogram = (
        (scale * np.random.default_rng(0).lognormal(0, 1, 2000)).tolist(),
        Histogram(),
    )
    for sample in samples:
        histogram.add(sample)
    assert histogram.n == 2000
    for percent in (50, 90, 99, 99.9, 100):
        assert (
            percentile(samples, percent) * (1 - ROUNDING)
            <= histogram.percentile(percent)
            <= percentile(samples, percent) * STEP * (1 + ROUNDING)
        )


def test_what_a_sample_does_not_support_is_not_said() -> None:
    histogram = Histogram()
    for _ in range(661):
        histogram.add(10.0)
    assert histogram.text(99) == "n/a (n<662)"
    histogram.add(10.0)
    assert histogram.text(99) in ("10", "10.1")


@pytest.mark.parametrize("ms", [-5.0, 0.0, 1e12])
def test_a_duration_out_of_range_is_counted_at_the_edge(ms: float) -> None:
    histogram = Histogram()
    histogram.add(ms)
    assert (histogram.n, histogram.percentile(50) > 0) == (1, True)


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Histogram().percentile(50)
