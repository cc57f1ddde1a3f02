from __future__ import annotations

import math

import pytest

from finedge.measure import (
    MIN_QUERIES,
    StageTimes,
    accuracy_record,
    mcnemar,
    percentile,
    supported,
    wilson95,
)


def test_a_percentile_is_a_measured_value():
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(samples, p) for p in (1, 20, 50, 90, 100)] == [1.0, 1.0, 3.0, 5.0, 5.0]


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@pytest.mark.parametrize(("percent", "n"), MIN_QUERIES.items())
def test_the_minimum_is_where_the_order_statistic_supports_the_claim(percent, n):
    """The smallest n at which the count of overlong queries keeps 99 % confidence.

    MLPerf calls this rule early stopping.
    """
    assert supported(percent, n)
    assert not supported(percent, n - 1)


def test_p90_needs_64_by_the_binomial_rule():
    """With n queries and t of them over the bound, t = 1 needs n = 64.

    P(at most t over | true share 10 %) must be at most 1 %.
    """
    tail = lambda n: 0.9**n + n * 0.1 * 0.9 ** (n - 1)  # noqa: E731
    assert tail(64) <= 0.01 < tail(63)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_against_published_values(k, n, low, high):
    assert wilson95(k, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_is_everything():
    assert wilson95(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 9), (9, 3), (5, 5), (1, 0)])
def test_mcnemar_is_the_exact_binomial_test(b, c):
    n, k = b + c, min(b, c)
    exact = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0
    assert mcnemar(b, c) == pytest.approx(exact)


def test_mcnemar_survives_large_counts():
    assert 0 < mcnemar(2000, 2100) < 0.2
    assert mcnemar(10, 4000) < 1e-300 or mcnemar(10, 4000) == 0.0


def test_the_accuracy_record():
    assert accuracy_record(80, 95, 100) == {
        "top1": 0.8,
        "top5": 0.95,
        "n": 100,
        "wilson95": [0.711171, 0.866633],
    }


def test_stage_times_keep_raw_samples():
    times = StageTimes()
    for ms in (3.0, 1.0):
        times.add("infer", ms)
    assert times["infer"] == [3.0, 1.0]
