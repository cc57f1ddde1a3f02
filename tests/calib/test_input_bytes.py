"""The frame's bytes as the first quantized tensor of the file for ONNX Runtime."""

from collections import Counter

import numpy as np
import onnx
import pytest

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.onnxruntime.input import grey_levels
from finedge.calib.ranges.calibration_table import CalibrationTable, Range
from finedge.runtime.ort.int8_products import open_exactly

RNG = np.random.default_rng(0)
RANGES = {"n": Range(-0.9, 0.7), "c": Range(-2, 2), "f": Range(-2, 2), "y": Range(-3, 3)}


def model(mean, variance):
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (uint8[b, 8, 8, 3] frames) => (float[b, 5] y)
    <float[3] one = {{1, 1, 1}}, float[3] zero = {{0, 0, 0}},
     float[3] mean = {{{mean}}}, float[3] variance = {{{variance}}}>
    {{ x = Cast<to = 1>(frames)  p = Transpose<perm = [0, 3, 1, 2]>(x)
       n = BatchNormalization<epsilon = 0.0>(p, one, zero, mean, variance)
       c = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3], strides = [2, 2]>(n, W)
       f = Flatten(c)  y = Gemm(f, V) }}"""
    graph = onnx.parser.parse_model(text)
    weights = {"W": (4, 3, 3, 3), "V": (64, 5)}
    graph.graph.initializer.extend(
        onnx.numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)
        for name, shape in weights.items()
    )
    return graph


def quantized(float_model):
    return quantize_for_onnxruntime(float_model, CalibrationTable("max", RANGES))[0]


def test_bytes_go_into_the_first_layer_where_normalisation_is_their_step():
    float_model = model("127, 127, 127", "16384, 16384, 16384")
    levels = grey_levels(float_model.graph)
    assert (levels.step, levels.zero_point) == (1 / 128, 127)
    types = Counter(n.op_type for n in quantized(float_model).graph.node)
    assert types["Cast"] == types["BatchNormalization"] == 0
    assert types["Transpose"] == 1


@pytest.mark.int8
def test_bytes_are_the_exact_normalised_frame_whatever_was_calibrated():
    float_model = model("127, 127, 127", "16384, 16384, 16384")
    read = quantized(float_model)
    tensor = next(
        n.output[0]
        for n in read.graph.node
        if n.op_type == "DequantizeLinear" and n.output[0].startswith("n_")
    )
    read.graph.output.append(onnx.ValueInfoProto(name=tensor))
    float_model.graph.output.append(onnx.ValueInfoProto(name="n"))
    frames = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    found, expected = (
        open_exactly(m).run([name], {"frames": frames})[0]
        for m, name in ((read, tensor), (float_model, "n"))
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ("127, 126, 127", "16384, 16384, 16384"),
        ("127, 127, 127", "16384, 16384, 4096"),
        ("127.5, 127.5, 127.5", "16384, 16384, 16384"),
        ("-3, -3, -3", "16384, 16384, 16384"),
    ],
)
def test_any_other_normalisation_stays_in_float(mean, variance):
    float_model = model(mean, variance)
    assert grey_levels(float_model.graph) is None
    types = Counter(n.op_type for n in quantized(float_model).graph.node)
    assert types["Cast"] == types["BatchNormalization"] == 1
