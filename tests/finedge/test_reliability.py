"""Reliability bins and the calibration error of Guo et al."""

from __future__ import annotations

import numpy as np
import pytest

from finedge.reliability import BINS, ReliabilityBin, calibration_error, reliability


def test_the_calibration_error_is_the_papers() -> None:
    p = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    right = np.array([True, True, True, False, True, False])
    bins = reliability(p, right)
    assert calibration_error(bins) == pytest.approx((4 * 0.2 + 2 * 0.0) / 6)
    assert [(one.n, one.right) for one in bins if one.n] == [(2, 0.5), (4, 0.75)]
    assert calibration_error(reliability(np.array([0.0, 1.0]), np.array([False, True]))) == 0


def test_a_value_on_a_border_belongs_to_the_lower_bin() -> None:
    bins = reliability(np.array([1 / BINS, 1.0]), np.array([True, True]))
    assert bins[0] == ReliabilityBin(1, pytest.approx(1 / BINS), 1.0)
    assert bins[-1].n == 1


def test_no_answers_have_no_error() -> None:
    assert calibration_error(reliability(np.array([]), np.array([], bool))) == 0
