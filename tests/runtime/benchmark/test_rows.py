"""Numbers that say no more than the sample does, and comparisons image by image."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finedge.data import Item
from finedge.errors import UsageError
from finedge.measure import MIN_QUERIES
from finedge.runtime.benchmark.accuracy import (
    change,
    choose,
    paired_interval95,
    per_class,
    reliability_record,
)
from finedge.runtime.benchmark.modes import parse_modes
from finedge.runtime.benchmark.rows import (
    latency_fields,
    median_bounds99,
    median_or_none,
    unsupported,
)
from finedge.runtime.benchmark.run import clock_drop
from finedge.runtime.benchmark.schedule import parse_duration, schedule
from finedge.runtime.evaluate.predict import Answers


def answers(labels: list[int], top1: list[int]) -> Answers:
    ranked = np.array(top1)[:, None]
    return Answers(
        tuple(Item(Path(f"{i}.png"), x) for i, x in enumerate(labels)),
        np.array(labels),
        ranked,
        np.ones(ranked.shape, np.float32),
        np.ones(len(labels), np.float32),
    )


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_a_percentile_appears_with_its_least_sample_and_not_before(percent: int) -> None:
    n = MIN_QUERIES[percent]
    assert latency_fields([1.0] * n)[f"p{percent}_ms"] == 1.0
    assert latency_fields([1.0] * (n - 1))[f"p{percent}_ms"] is None


def test_latency_keeps_the_slowest_query_and_counts_all() -> None:
    fields = latency_fields([1.0] * 99 + [500.0])
    assert (fields["n"], fields["max_ms"], fields["p50_ms"]) == (100, 500.0, 1.0)


def test_the_bounds_of_the_median_enclose_it_and_are_measured_values() -> None:
    rng = random.Random(0)
    times = [round(rng.lognormvariate(0, 1), 4) for _ in range(500)]
    bounds = median_bounds99(times)
    assert bounds is not None
    assert bounds[0] <= sorted(times)[249] <= bounds[1]
    assert set(times) >= set(bounds)


def test_the_bounds_hold_the_true_median_as_often_as_they_claim() -> None:
    rng = random.Random(1)
    runs = [median_bounds99([rng.expovariate(1.0) for _ in range(101)]) for _ in range(600)]
    held = sum(low <= np.log(2) <= high for low, high in (r for r in runs if r))
    assert held / 600 > 0.975


def test_too_few_samples_have_no_median() -> None:
    assert median_bounds99([1.0] * 10) is None
    assert median_or_none([1.0] * 10) is None
    assert median_or_none([]) is None


def test_a_percentile_asked_for_but_unsupported_is_a_reason() -> None:
    assert unsupported((90.0, 99.0), 100) == ("p99 was asked for: needs 662 queries, has 100",)


def test_change_counts_flips_gains_and_losses() -> None:
    first, second = answers([0, 1, 2, 3], [0, 1, 0, 0]), answers([0, 1, 2, 3], [0, 2, 2, 1])
    difference = change(first, second)
    assert (difference.flips, difference.gained, difference.lost, difference.top1_change) == (
        3,
        1,
        1,
        0.0,
    )
    assert difference.mcnemar_p == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 12), (30, 4), (0, 100)])
def test_the_paired_interval_encloses_the_difference_and_mirrors(gained: int, lost: int) -> None:
    low, high = paired_interval95(gained, lost, n=100)
    assert -1 <= low <= (gained - lost) / 100 <= high <= 1 or (gained, lost) == (0, 100)
    assert paired_interval95(lost, gained, n=100) == pytest.approx((-high, -low))


def test_the_paired_interval_covers_the_truth_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(300, [0.05, 0.08, 0.87], size=2000)
    held = [
        low <= -0.03 <= high
        for low, high in (paired_interval95(int(g), int(x), n=300) for g, x, _ in counts)
    ]
    assert 0.93 < np.mean(held) < 0.985


def test_per_class_leaves_out_classes_without_images() -> None:
    table = per_class(
        ("a", "b", "c"),
        {"fp32": answers([0, 0, 2], [0, 0, 2]), "int8": answers([0, 0, 2], [0, 1, 2])},
    )
    assert table == [
        {
            "label": "a",
            "n": 2,
            "top1": {"fp32": 1.0, "int8": 0.5},
            "change": -0.5,
            "flips": 1,
            "mcnemar_p": 1.0,
        },
        {
            "label": "c",
            "n": 1,
            "top1": {"fp32": 1.0, "int8": 1.0},
            "change": 0.0,
            "flips": 0,
            "mcnemar_p": 1.0,
        },
    ]


def test_reliability_tells_the_probabilities_of_both_temperatures_apart() -> None:
    one = replace(answers([0, 0], [0, 1]), uncalibrated=np.full(2, 0.5, np.float32))
    record = reliability_record(one)
    assert (record["ece"], record["ece_uncalibrated"]) == (0.5, 0.0)
    assert record["bins"][-1] == [2, 1.0, 0.5]


def test_per_class_without_int8_has_no_change() -> None:
    assert per_class(("a",), {"fp32": answers([0], [0])})[0]["change"] is None


def test_choosing_images_is_seeded_and_never_repeats_one() -> None:
    items = [Item(Path(str(i)), 0) for i in range(50)]
    assert choose(items, 10) == choose(items, 10)
    assert len(set(choose(items, 10))) == 10
    assert choose(items, None) == tuple(items)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("2m", 120), ("1.5", 1.5), ("1 min", 60)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "ten", "-1s", "0", "5 days", "inf", "nan"])
def test_other_durations_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize("duration", ["100ms", "1s", "10s", "60s"])
def test_a_schedule_has_at_least_three_blocks_below_a_second(duration: str) -> None:
    plan = schedule(duration)
    assert plan.blocks >= 3
    assert plan.block_s <= 1
    assert plan.blocks * plan.block_s == pytest.approx(parse_duration(duration))
    assert plan.rewarm_s < plan.block_s
    assert 0 < plan.warm_up_s <= 2


def test_modes_are_read_once_each() -> None:
    assert [(m.name, m.batch) for m in parse_modes("single-stream, offline,offline", batch=4)] == [
        ("single-stream", 1),
        ("offline", 4),
    ]


@pytest.mark.parametrize(("names", "batch"), [("", 8), ("multi", 8), ("offline", 0)])
def test_other_modes_are_usage_errors(names: str, batch: int) -> None:
    with pytest.raises(UsageError):
        parse_modes(names, batch=batch)


DROPS: list[tuple[list[float | None], float | None]] = [
    ([2000] * 9, 0.0),
    ([2000, 2000, 1900, 1800, 1800, 1500], 0.175),
    ([1500, 1800, 2000], 0.0),
    ([None] * 9, None),
    ([2000], None),
]


@pytest.mark.parametrize(("readings", "drop"), DROPS)
def test_a_clock_drop_compares_the_first_third_with_the_last(
    readings: list[float | None], drop: float | None
) -> None:
    assert clock_drop(readings) == (None if drop is None else pytest.approx(drop))
