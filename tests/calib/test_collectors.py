import numpy as np
import pytest
import torch
from modelopt.torch.quantization.calib import HistogramCalibrator, MaxCalibrator

from finedge.calib.collectors import BINS, COLLECTORS, MaxCollector, PercentileCollector


def _batches(seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((8, 500)) * scale).astype(np.float32) for scale in (0.1, 1, 5, 2)]


def _collect(collector, batches):
    for batch in batches:
        collector.observe(batch)
    return collector.range()


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_range_lies_within_what_was_seen(name):
    everything = np.concatenate([b.ravel() for b in _batches()])
    found = _collect(COLLECTORS[name](), _batches())
    assert everything.min() <= found.low < 0 < found.high <= everything.max()


@pytest.mark.parametrize("name", COLLECTORS)
def test_the_order_of_batches_hardly_matters(name):
    first, second = (
        _collect(COLLECTORS[name](), _batches()),
        _collect(COLLECTORS[name](), _batches()[::-1]),
    )
    assert [first.low, first.high] == pytest.approx(
        [second.low, second.high], abs=first.amax * 3 / BINS
    )


@pytest.mark.parametrize("name", COLLECTORS)
def test_memory_does_not_grow_with_the_data(name):
    def size(collector):
        return sum(v.nbytes for v in vars(collector).values() if isinstance(v, np.ndarray))

    few, many = COLLECTORS[name](), COLLECTORS[name]()
    _collect(few, _batches()[:1])
    _collect(many, _batches() * 5)
    assert size(few) == size(many)


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_tensor_of_zeros_has_the_empty_range(name):
    found = _collect(COLLECTORS[name](), [np.zeros((2, 3), np.float32)] * 2)
    assert (found.low, found.high) == (0, 0)


@pytest.mark.parametrize("name", COLLECTORS)
def test_zeros_first_and_values_later_are_both_counted(name):
    found = _collect(COLLECTORS[name](), [np.zeros(100, np.float32), np.full(100, -3, np.float32)])
    assert found.low == pytest.approx(-3, rel=1e-3)


def test_max_is_modelopts_max():
    oracle = MaxCalibrator(num_bits=8, axis=None, unsigned=False)
    for batch in _batches():
        oracle.collect(torch.from_numpy(batch))
    assert _collect(MaxCollector(), _batches()).amax == oracle.compute_amax().item()


# Percentiles that fall between two values of the sample. At a tie the next value is as right, and
# float32 sums take it.
@pytest.mark.parametrize("percent", [98.97, 99.903, 99.99])
def test_percentile_is_the_quantile_of_the_magnitudes(percent):
    magnitudes = np.abs(np.concatenate([b.ravel() for b in _batches()]))
    found = _collect(PercentileCollector(percent), _batches())
    assert found.amax == pytest.approx(
        np.quantile(magnitudes, percent / 100, method="inverted_cdf"),
        abs=float(magnitudes.max()) * 2 / BINS,
    )


@pytest.mark.parametrize("percent", [98.97, 99.903, 99.99])
def test_percentile_is_modelopts_percentile_within_its_bins(percent):
    oracle = HistogramCalibrator(num_bits=8, axis=None, unsigned=False, num_bins=8192)
    for batch in _batches():
        oracle.collect(torch.from_numpy(batch))
    expected = oracle.compute_amax("percentile", percentile=percent).item()
    found = _collect(PercentileCollector(percent), _batches())
    largest = max(float(np.abs(b).max()) for b in _batches())
    assert found.amax == pytest.approx(expected, abs=largest * 3 / BINS)


def test_percentile_leaves_out_a_single_outlier():
    values = np.concatenate([np.linspace(-1, 1, 100_000), [1000]]).astype(np.float32)
    found = _collect(PercentileCollector(99.99), [values])
    assert found.high == pytest.approx(1, abs=1000 * 2 / BINS)


def test_percentile_keeps_the_side_that_has_no_outliers():
    values = np.concatenate([np.linspace(-0.3, 6, 100_000), np.full(5, 50)]).astype(np.float32)
    assert _collect(PercentileCollector(99.99), [values]).low == np.float32(-0.3)
