from __future__ import annotations

import math

import numpy as np
import pytest

from finedge.errors import UsageError
from finedge.runtime.stream.decide import (
    SCENE_CHANGE,
    Decider,
    Holder,
    Holding,
    Rules,
    SceneChange,
    Smoother,
    Smoothing,
    thumbnail,
)
from finedge.runtime.stream.results import status_of

A, B, C = np.eye(3)
EPS = 1e-12


def grey(level: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_smoothing_forgets_by_its_time_constant_whatever_the_frame_rate() -> None:
    for steps in (1, 7, 100):
        smoother = Smoother(Smoothing(2.0))
        smoother(A, seconds=10.0)
        for i in range(1, steps + 1):
            p = smoother(B, seconds=10.0 + 2.0 * i / steps)
        np.testing.assert_allclose(p, [math.exp(-1), 1 - math.exp(-1), 0], atol=EPS)


def test_smoothed_probabilities_sum_to_one_and_the_first_frame_is_its_own() -> None:
    rng, smoother = np.random.default_rng(0), Smoother(Smoothing(0.3))
    frames = rng.dirichlet(np.ones(5), 50)
    out = [smoother(p, seconds=0.04 * i) for i, p in enumerate(frames)]
    np.testing.assert_array_equal(out[0], frames[0])
    np.testing.assert_allclose([p.sum() for p in out], 1, atol=EPS)
    assert np.diff(out, axis=0).std() < np.diff(frames, axis=0).std() / 3


def test_a_clock_that_stands_or_goes_back_changes_nothing() -> None:
    smoother = Smoother(Smoothing(1.0))
    smoother(A, seconds=5.0)
    np.testing.assert_array_equal(smoother(B, seconds=5.0), A)
    np.testing.assert_array_equal(smoother(B, seconds=4.0), A)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_time_constant_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError):
        Smoothing(seconds)


def test_a_label_is_held_until_another_leads_for_enough_frames_in_a_row() -> None:
    lead, close = np.array([0.2, 0.7, 0.1]), np.array([0.45, 0.5, 0.05])
    holder = Holder(Holding(3, margin=0.2))
    labels = [holder(p) for p in (A, lead, lead, close, lead, lead, A, lead, lead, lead, lead, A)]
    assert labels == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_two_challengers_in_turn_never_take_over() -> None:
    holder = Holder(Holding(2))
    assert [holder(p) for p in (A, B, C, B, C, B, C, C)] == [0, 0, 0, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(("frames", "margin"), [(0, 0.1), (1, -0.1), (1, 1.1)])
def test_a_hold_that_is_none_is_refused(frames: int, margin: float) -> None:
    with pytest.raises(UsageError):
        Holding(frames, margin=margin)


def test_a_scene_begins_with_the_first_frame_and_with_a_large_change() -> None:
    scene = SceneChange()
    step = round(255 * SCENE_CHANGE)
    assert [scene(grey(level)) for level in (100, 100, 100 + step - 1, 100 + 2 * step)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_small_thing_that_moves_is_no_scene_change() -> None:
    first, second = grey(100, (480, 640)), grey(100, (480, 640))
    first[200:300, 100:200], second[200:300, 400:500] = 255, 255
    scene = SceneChange()
    assert [scene(first), scene(second)] == [True, False]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (480, 640)])
def test_a_frame_of_any_size_has_a_thumbnail(size: tuple[int, int]) -> None:
    small = thumbnail(grey(51, size))
    assert small.shape == (16, 16)
    np.testing.assert_allclose(small, 0.2, atol=0.005)


def test_a_scene_change_starts_smoothing_and_holding_again() -> None:
    decider = Decider(Rules(Smoothing(1000.0), Holding(50)))
    first, _ = decider(A, seconds=0.0, image=grey(30))
    held, label = decider(B, seconds=0.1, image=grey(30))
    again, other = decider(B, seconds=0.2, image=grey(200))
    np.testing.assert_array_equal(first, A)
    assert held[0] > 0.99
    assert label == 0
    np.testing.assert_array_equal(again, B)
    assert other == 1


def test_without_rules_the_model_decides() -> None:
    p, label = Decider(Rules())(np.array([0.1, 0.2, 0.7]), seconds=None, image=grey(0))
    assert (p.tolist(), label) == ([0.1, 0.2, 0.7], 2)


@pytest.mark.parametrize(
    ("age_ms", "unknown", "status"),
    [(10, False, "ok"), (10, True, "unknown"), (101, False, "stale"), (101, True, "stale")],
)
def test_the_status_of_an_answer(age_ms: float, unknown: bool, status: str) -> None:
    assert status_of(age_ms=age_ms, stale_ms=100, unknown=unknown) == status
