import numpy as np
import pytest

from finedge.calib.quantizers.report import quantize_weight


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (8, 1, 5, 5), (10, 32)])
def test_each_output_channel_is_right_to_half_a_step(shape):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * np.logspace(
        -3, 1, shape[0]
    ).reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32)
    values, scales = quantize_weight(weight)
    steps = scales.reshape(-1, *[1] * (len(shape) - 1))
    assert values.dtype == np.int8
    assert (np.abs(values * steps - weight) <= 0.5001 * steps).all()


def test_minus_128_is_never_used():
    assert quantize_weight(np.array([[-1.0, 0.5]], np.float32))[0].min() == -127


def test_a_pruned_channel_stays_zero():
    values, scales = quantize_weight(np.array([[0, 0], [1, 2]], np.float32))
    assert (values[0] == 0).all()
    assert scales[0] == 1
