"""Bias correction: the mean outputs of the layers of an INT8 file are those of the float model."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.calib.bias.bias_correction import correct_biases, float_means
from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from tests.calib.conftest import batches, logits, pictures

QUANTIZERS = {"tensorrt": quantize_for_tensorrt, "onnxruntime": quantize_for_onnxruntime}
# Of the largest shift before. What is left comes from rounding that a changed input moves.
LEFT = 0.2


@pytest.fixture(scope="module")
def target(tiny):
    return float_means(tiny.model, batches(pictures(64, seed=2)[0]))


@pytest.fixture(scope="module", params=QUANTIZERS)
def files(request, tiny, target):
    plain, _ = QUANTIZERS[request.param](tiny.model, tiny.table)
    return plain, correct_biases(plain, target)[0]


def _shift(model, target):
    """Return the largest mean shift of any layer's channel, in the unit of its float mean."""
    means = float_means(model, target.batches).means
    return max(
        float(np.abs(means[name] - mean).max() / (1e-6 + np.abs(mean).max()))
        for name, mean in target.means.items()
        if name in means
    )


def test_the_mean_shift_of_every_layer_shrinks(files, target):
    plain, corrected = files
    assert _shift(corrected, target) < LEFT * _shift(plain, target)


def test_the_logits_come_closer_to_float_on_new_pictures(files, tiny):
    exact = logits(tiny.model, tiny.frames)
    before, after = (np.abs(logits(m, tiny.frames) - exact).mean() for m in files)
    assert after < before


def test_a_corrected_file_passes_the_full_check_and_keeps_its_layers(files):
    plain, corrected = files
    onnx.checker.check_model(corrected, full_check=True)
    layers = [[n.name for n in m.graph.node if n.op_type in ("Conv", "Gemm")] for m in files]
    assert layers[0] == layers[1]
    assert len(plain.graph.node) == len(corrected.graph.node)


def test_integer_biases_stay_integers_at_their_scale(files):
    kinds = [
        sorted(numpy_helper.to_array(t).dtype.name for t in m.graph.initializer) for m in files
    ]
    assert kinds[0] == kinds[1]


def test_a_layer_without_a_bias_gets_one():
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (uint8[b, 4, 4, 2] x) => (float[b, 2, 4, 4] y)
    <float[2, 2, 1, 1] W = {1, 2, 3, 4}, float[2, 2, 1, 1] V = {1.5, 2, 3, 4}>
    { f = Cast<to=1>(x)  t = Transpose<perm=[0, 3, 1, 2]>(f)  y = Conv(t, %s) }"""
    # The "INT8 file" is a model with another weight: its mean output is shifted.
    exact, shifted = (onnx.parser.parse_model(text % weight) for weight in ("W", "V"))
    frames = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 2), np.uint8)
    target = float_means(exact, [frames])
    corrected, largest = correct_biases(shifted, target)
    (mean,) = target.means.values()
    assert len(corrected.graph.node[-1].input) == 3
    assert next(iter(float_means(corrected, [frames]).means.values())) == pytest.approx(mean)
    assert min(largest.values()) > 1
