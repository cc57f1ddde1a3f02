from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.report import NORMALISES, SOFTMAX_STAYS
from finedge.calib.ranges.calibration_table import CalibrationTable, Range
from finedge.calib.ranges.collectors import COLLECTORS
from finedge.calib.ranges.observe import collect_ranges
from finedge.errors import FinedgeError
from tests.calib.conftest import MIN_CORRELATION, batches, correlation, logits, pictures


@pytest.fixture(scope="module")
def placed(tiny):
    return quantize_for_onnxruntime(tiny.model, tiny.table)


def _types(model):
    return Counter(n.op_type for n in model.graph.node)


def test_it_passes_the_full_check_without_functions(placed):
    onnx.checker.check_model(placed[0], full_check=True)
    assert not placed[0].functions
    assert {o.domain for o in placed[0].opset_import} == {""}


@pytest.mark.parametrize("method", COLLECTORS)
def test_onnx_runtime_fuses_every_convolution(tiny, method, tmp_path):
    table = collect_ranges(tiny.model, batches(pictures(64, seed=2)[0]), method=method)
    logits(
        quantize_for_onnxruntime(tiny.model, table)[0],
        tiny.frames[:1],
        optimized=tmp_path / "o.onnx",
    )
    run = _types(onnx.load(tmp_path / "o.onnx"))
    assert run["QLinearConv"] == _types(tiny.model)["Conv"]
    assert run["QLinearAdd"] == _types(tiny.model)["Add"]
    assert run["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Add", "Gemm"} & set(run)


def test_onnx_runtime_fuses_every_convolution_and_every_gate(gated, tmp_path):
    logits(
        quantize_for_onnxruntime(gated.model, gated.table)[0],
        gated.frames[:1],
        optimized=tmp_path / "o.onnx",
    )
    run, written = _types(onnx.load(tmp_path / "o.onnx")), _types(gated.model)
    assert run["QLinearConv"] == written["Conv"]
    assert run["QLinearMul"] == written["Mul"] > 0
    assert run["QLinearAdd"] == written["Add"]
    assert run["QLinearSigmoid"] >= written["Mul"]
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Add", "Mul", "Gemm"} & set(run)


def test_a_product_that_is_no_gate_stays_float():
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[b, 2, 4, 4] x) => (float[b, 2, 4, 4] y, float[b, 2, 4, 4] z)
    <float[2, 2, 1, 1] W = {1, 2, 3, 4}>
    { c = Conv(x, W)  m = Sigmoid(x)  r = Relu(c)  y = Mul(r, m)  d = Conv(r, W)  z = Mul(d, r) }"""
    model = onnx.parser.parse_model(text)
    ranges = {
        name: Range(-1, 1)
        for node in model.graph.node
        for name in (*node.input, *node.output)
        if name != "W"
    }
    placed, _ = quantize_for_onnxruntime(model, CalibrationTable("max", ranges))
    maker = {name: n.op_type for n in placed.graph.node for name in n.output}
    assert [maker[o.name] for o in placed.graph.output] == ["Mul", "Mul"]


def test_the_record_says_what_stays_float_and_why(tiny, placed):
    why = Counter(placed[1].stays_float.values())
    assert why == {SOFTMAX_STAYS: 1, NORMALISES: 3}
    assert list(placed[1].attention.values()) == ["scores"]
    assert len(placed[1].int8) == _types(tiny.model)["Conv"] + 1


def test_logits_stay_float(placed):
    (last,) = [n for n in placed[0].graph.node if placed[0].graph.output[0].name in n.output]
    assert last.op_type == "Gemm"


def test_activations_are_unsigned_and_weights_signed_symmetric_per_channel(placed):
    constant = {t.name: numpy_helper.to_array(t) for t in placed[0].graph.initializer}
    for node in placed[0].graph.node:
        if node.op_type == "QuantizeLinear":
            assert constant[node.input[2]].dtype == np.uint8
        if (
            node.op_type == "DequantizeLinear"
            and constant.get(node.input[0], np.empty(0)).dtype == np.int8
        ):
            assert not constant[node.input[2]].any()
            assert constant[node.input[1]].size in (1, len(constant[node.input[0]]))


@pytest.mark.parametrize("method", COLLECTORS)
def test_it_agrees_with_the_float_model(tiny, method):
    table = collect_ranges(tiny.model, batches(pictures(64, seed=2)[0]), method=method)
    expected, found = (
        logits(tiny.model, tiny.frames),
        logits(quantize_for_onnxruntime(tiny.model, table)[0], tiny.frames),
    )
    assert (expected.argmax(1) == found.argmax(1)).mean() >= 0.95


def test_gates_survive_eight_bits(gated):
    expected, found = (
        logits(gated.model, gated.frames),
        logits(quantize_for_onnxruntime(gated.model, gated.table)[0], gated.frames),
    )
    assert correlation(expected, found) > MIN_CORRELATION


def test_a_layer_that_was_not_calibrated_is_named(tiny):
    with pytest.raises(FinedgeError, match="was not calibrated"):
        quantize_for_onnxruntime(tiny.model, CalibrationTable("max", {}))


def test_the_model_is_left_as_it_was(tiny):
    before = tiny.model.SerializeToString(deterministic=True)
    quantize_for_onnxruntime(tiny.model, tiny.table)
    assert tiny.model.SerializeToString(deterministic=True) == before
