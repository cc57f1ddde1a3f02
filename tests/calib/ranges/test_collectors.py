import numpy as np
import pytest
import torch
from modelopt.torch.quantization.calib import HistogramCalibrator, MaxCalibrator

from finedge.calib.ranges.calibration_table import Range
from finedge.calib.ranges.collectors import (
    COLLECTORS,
    LEVELS,
    cut_percentile,
    keep_all,
    least_divergence,
)
from finedge.calib.ranges.histogram import BINS, MANTISSA_BITS, SAMPLE, TensorStatistics, sample

BIN = 2.0**-MANTISSA_BITS  # the width of a bin, as a share of its values
STEP = 0.01  # of the limits that entropy and MSE try, as a share of the largest


def _batches(seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((8, 500)) * scale).astype(np.float32) for scale in (0.1, 1, 5, 2)]


def _observed(batches):
    statistics = TensorStatistics()
    for batch in batches:
        statistics.observe(batch)
    return statistics


def _heavy_tailed(seed=0, *, relu=False):
    values = np.random.default_rng(seed).laplace(size=(16, 8000)).astype(np.float32)
    return np.maximum(values, 0) if relu else values


def _squared_error(values, kept: Range):
    """Quantize in full to 256 levels, and return the mean squared error."""
    low, high = min(kept.low, 0), max(kept.high, 0)
    step = (high - low) / (LEVELS - 1)
    zero = np.rint(-low / step)
    levels = np.clip(np.rint(values / step) + zero, 0, LEVELS - 1)
    return float((((levels - zero) * step - values) ** 2).mean())


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_range_lies_within_what_was_seen(name):
    everything = np.concatenate([b.ravel() for b in _batches()])
    kept = COLLECTORS[name](_observed(_batches()))
    assert everything.min() <= kept.low < 0 < kept.high <= everything.max()


@pytest.mark.parametrize("name", COLLECTORS)
def test_the_order_of_batches_does_not_matter(name):
    kept = COLLECTORS[name]
    assert kept(_observed(_batches())) == kept(_observed(_batches()[::-1]))


@pytest.mark.parametrize("name", COLLECTORS)
def test_the_size_of_batches_does_not_matter(name):
    images = _heavy_tailed().reshape(16, 20, 20, 20)
    one_by_one, all_at_once = (_observed(np.split(images, n)) for n in (16, 1))
    assert COLLECTORS[name](one_by_one) == COLLECTORS[name](all_at_once)


def test_memory_does_not_grow_with_the_data():
    few, many = _observed(_batches()[:1]), _observed(_batches() * 5)
    assert few.counts.nbytes == many.counts.nbytes == 8 * BINS


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_tensor_of_zeros_has_the_empty_range(name):
    for zeros in (np.zeros((2, 3), np.float32), -np.zeros((2, 3), np.float32)):
        kept = COLLECTORS[name](_observed([zeros, zeros]))
        assert (kept.low, kept.high) == (0, 0)


@pytest.mark.parametrize("name", COLLECTORS)
def test_zeros_first_and_values_later_are_both_counted(name):
    batches = [np.zeros((1, 100), np.float32), np.full((1, 100), -3, np.float32)]
    statistics = _observed(batches)
    assert COLLECTORS[name](statistics).low == pytest.approx(-3, rel=2 * BIN)
    assert statistics.counts.sum() == 200


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1, 1e30])
@pytest.mark.parametrize("name", COLLECTORS)
def test_a_range_scales_with_the_values(name, scale):
    kept, scaled = (
        COLLECTORS[name](_observed([(_heavy_tailed() * np.float32(s)).astype(np.float32)]))
        for s in (1, scale)
    )
    assert scaled.amax == pytest.approx(kept.amax * scale, rel=STEP)


def test_max_is_modelopts_max():
    oracle = MaxCalibrator(num_bits=8, axis=None, unsigned=False)
    for batch in _batches():
        oracle.collect(torch.from_numpy(batch))
    assert keep_all(_observed(_batches())).amax == oracle.compute_amax().item()


@pytest.mark.parametrize("percent", [98.97, 99.903, 99.99])
def test_percentile_is_the_quantile_of_the_magnitudes(percent):
    magnitudes = np.abs(np.concatenate([b.ravel() for b in _batches()]))
    expected = np.quantile(magnitudes, percent / 100, method="inverted_cdf")
    kept = cut_percentile(_observed(_batches()), percent=percent)
    assert expected <= kept.amax <= expected * (1 + BIN)


@pytest.mark.parametrize("percent", [98.97, 99.903, 99.99])
def test_percentile_is_modelopts_percentile_within_its_bins(percent):
    oracle = HistogramCalibrator(num_bits=8, axis=None, unsigned=False, num_bins=8192)
    for batch in _batches():
        oracle.collect(torch.from_numpy(batch))
    expected = oracle.compute_amax("percentile", percentile=percent).item()
    kept = cut_percentile(_observed(_batches()), percent=percent)
    largest = max(float(np.abs(b).max()) for b in _batches())
    assert kept.amax == pytest.approx(expected, abs=largest * 3 / 8192 + expected * BIN)


def test_percentile_leaves_out_a_single_outlier():
    values = np.concatenate([np.linspace(-1, 1, 8_191), [1000]]).astype(np.float32)
    kept = cut_percentile(_observed([values[None]]), percent=99.98)
    assert kept.high == pytest.approx(1, rel=2 * BIN)


def test_percentile_keeps_the_side_that_has_no_outliers():
    values = np.concatenate([np.linspace(-0.3, 6, 8_180), np.full(5, 50)]).astype(np.float32)
    assert cut_percentile(_observed([values[None]]), percent=99.9).low == np.float32(-0.3)


# Entropy cuts a tail of rare values. A single value that is far away would be cut by every method
# but max, whatever it means.
def test_entropy_is_near_modelopts_entropy_on_both_signs():
    values = _heavy_tailed()
    oracle = HistogramCalibrator(num_bits=8, axis=None, unsigned=False, num_bins=2048)
    oracle.collect(torch.from_numpy(values))
    expected = oracle.compute_amax("entropy", stride=64).item()
    assert least_divergence(_observed([values])).amax == pytest.approx(expected, rel=0.12)


def test_entropy_gives_a_tensor_after_a_relu_all_levels():
    both, positive = (least_divergence(_observed([_heavy_tailed(relu=r)])) for r in (False, True))
    assert positive.low == 0
    assert positive.high >= both.high  # twice the levels: less need to cut


@pytest.mark.parametrize("relu", [False, True])
def test_mse_has_the_least_error_of_all_methods(relu):
    values = _heavy_tailed(relu=relu)
    statistics = _observed([values])
    errors = {name: _squared_error(values, kept(statistics)) for name, kept in COLLECTORS.items()}
    assert errors["mse"] <= 1.01 * min(errors.values())
    assert errors["mse"] < 0.95 * errors["max"]


def test_what_has_no_tail_is_not_cut():
    bounded = np.clip(_heavy_tailed(relu=True), 0, 1)
    for kept in COLLECTORS.values():
        assert kept(_observed([bounded])).high == pytest.approx(1, rel=STEP)


def test_a_large_tensor_is_sampled_over_all_channels_rows_and_columns():
    shape = (32, 40, 56)
    places = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    chosen = sample(places, first=0).astype(int)
    assert SAMPLE / 2 <= len(chosen) <= SAMPLE
    for axis, size in zip(np.unravel_index(chosen, shape), shape, strict=True):
        assert np.bincount(axis, minlength=size).min() > 0
    assert len(np.intersect1d(chosen, sample(places, first=1).astype(int))) == 0


def test_the_extremes_see_every_value():
    values = np.zeros((1, 100_000), np.float32)
    values[0, 12_345], values[0, 54_321] = -7, 9
    assert keep_all(_observed([values])) == Range(-7, 9)
