from __future__ import annotations

import numpy as np
import pytest

from finedge.runtime.find.box import Box
from finedge.runtime.track.pool import CUT, Pool, SureRule, weight_of

RULE = SureRule(seconds=1.0, frames=3, p=0.5, margin=0.2)
BOX = Box(0, 0, 8, 8)


def pool_of(*rows: tuple[float, ...], weight: float = 1.0) -> Pool:
    pool = Pool()
    for row in rows:
        pool.add(np.array(row), weight=weight)
    return pool


def test_probabilities_are_the_weighted_mean() -> None:
    pool = pool_of((0.2, 0.8))
    pool.add(np.array([0.8, 0.2]), weight=3.0)
    assert pool.p == pytest.approx([0.65, 0.35])
    assert (pool.frames, pool.weight) == (2, 4.0)


@pytest.mark.parametrize(
    ("rows", "seconds", "least_p", "label"),
    [
        ([(0.9, 0.1)] * 3, 1.0, 0.0, 0),
        ([(0.9, 0.1)] * 2, 1.0, 0.0, None),  # too few frames
        ([(0.9, 0.1)] * 3, 0.9, 0.0, None),  # too soon
        ([(0.55, 0.45)] * 9, 9.0, 0.0, None),  # two labels are too near
        ([(0.45, 0.2, 0.35)] * 9, 9.0, 0.0, None),  # not probable enough
        ([(0.9, 0.1)] * 9, 9.0, 0.95, None),  # below the bundle's threshold
    ],
)
def test_a_label_is_fixed_by_a_stated_rule(
    rows: list[tuple[float, ...]], seconds: float, least_p: float, label: int | None
) -> None:
    pool = pool_of(*rows)
    pool.fix(RULE, seconds=seconds, least_p=least_p)
    assert pool.label == label


def test_a_fixed_label_stays() -> None:
    pool = pool_of(*[(0.9, 0.1)] * 3)
    pool.fix(RULE, seconds=1.0)
    for _ in range(20):
        pool.add(np.array([0.0, 1.0]), weight=1.0)
        pool.fix(RULE, seconds=5.0)
    assert pool.label == 0


def test_the_best_crop_is_kept_as_a_copy() -> None:
    pool, crop = Pool(), np.zeros((8, 8, 3), np.uint8)
    pool.keep_best(crop, BOX, weight=0.5)
    crop[:] = 9
    pool.keep_best(crop, Box(1, 1, 8, 8), weight=0.4)
    assert pool.crop is not None
    assert (pool.crop == 0).all()
    assert pool.box == BOX


def test_a_pool_absorbs_a_later_one() -> None:
    one, other = pool_of((1.0, 0.0)), pool_of((0.0, 1.0), (0.0, 1.0))
    other.keep_best(np.ones((2, 2, 3), np.uint8), BOX, weight=0.9)
    one.absorb(other)
    assert one.p == pytest.approx([1 / 3, 2 / 3])
    assert (one.frames, one.box) == (3, BOX)
    empty = Pool()
    empty.absorb(one)
    assert empty.p == pytest.approx(one.p)


def test_sharp_large_whole_crops_count_more() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    flat = np.full((128, 128, 3), 90, np.uint8)
    whole = weight_of(sharp, whole=128)
    assert whole > 10 * weight_of(flat, whole=128) > 0
    assert weight_of(sharp[:32, :32], whole=128) < whole
    assert weight_of(sharp, whole=128, cut=True) == pytest.approx(CUT * whole)
