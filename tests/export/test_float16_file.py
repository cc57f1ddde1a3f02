"""model.fp16.onnx of every model: the same answers, attention in float16, few Casts.

The same holds for the float16 islands of the INT8 files.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.calib.ranges.observe import collect_ranges
from finedge.export.onnx_files import float16_file
from finedge.graph.float16 import float_values
from finedge.graph.float16_islands import float16_islands
from finedge.graph.keep_float32 import keep_float32
from finedge.train.models import names
from tests.small_models import small_export

BACKBONE = "wrn_16_1"  # the quickest to export; its BatchNorms in front of convolutions stay nodes
CLOSE = 0.02  # of max(1, largest logit); measured at most .0011 for fp16
# Casts. Measured: 3 (frame, first layer, logits) in the seven models without normalisers, 13 in
# attend_rectify, 16 in clca_cga.
FEW = 16
QUICK = {
    "cnl",
    "attend_rectify",
    "clca_cga",
    "csca",
}  # every kind of construction; the others are exported under slow
MODELS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names()]
FRAMES = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)


def exported(name, backbone=BACKBONE):
    return onnx.ModelProto.FromString(small_export(name=name, backbone=backbone)[0])


def run(model):
    onnx.checker.check_model(model, full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    ).run(None, {"frames": FRAMES})


def check_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() <= CLOSE * max(1, np.abs(b).max())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_in_float16_as_in_float32(name, record_property):
    model = exported(name)
    half = float16_file(model)
    check_close(run(half), run(model))
    assert half.ByteSize() < 0.56 * model.ByteSize()
    kinds = Counter(n.op_type for n in half.graph.node)
    record_property("casts", kinds["Cast"])
    assert kinds["Cast"] <= FEW
    assert not double_casts(half)
    assert attention_is_half(half)


@pytest.mark.parametrize("name", ["cnl", "clca_cga", "attend_rectify"])
def test_float32_stay_pixels_normalisers_and_probabilities(name):
    half = float16_file(exported(name))
    floats, stays = float_values(half), keep_float32(half.graph)
    for node in half.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul", "CrossLayerAttention", "ChannelAttention"):
            assert node.output[0] not in floats, node.name
        elif node.name in stays and node.op_type != "Cast":
            assert node.output[0] in floats, node.name
    normalised = next(n for n in half.graph.node if n.op_type == "BatchNormalization")
    assert normalised.input[0] in floats, "over raw pixels: variances in the thousands"
    expected = {"clca_cga": {"Div", "Sqrt"}, "attend_rectify": {"Sub", "Exp", "Log"}}
    assert {n.op_type for n in half.graph.node if n.output[0] in floats} >= expected.get(
        name, set()
    )
    halves = [n.op_type for n in half.graph.node if n.output[0] not in floats]
    assert "Sub" not in halves, "of a log softmax"


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_islands_of_every_model_answer_as_its_int8_file(name):
    model = exported(name, "mobilenetv2_035")
    portable, _ = quantize_for_tensorrt(model, collect_ranges(model, [FRAMES]))
    expected = run(portable)
    islands = float16_islands(portable)
    check_close(run(islands), expected)
    assert not double_casts(islands)
    assert attention_is_half(islands)


def double_casts(model):
    """Casts between floats that undo each other; uint8 -> float32 -> float16 is none."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    made = {o: n for n in model.graph.node for o in n.output}
    inside = [
        n
        for n in model.graph.node
        if n.op_type == "Cast" and n.attribute[0].i in floats and n.input[0] not in {"frames"}
    ]
    return [
        n.name
        for n in inside
        if (m := made.get(n.input[0])) is not None
        and m.op_type == "Cast"
        and m.input[0] != "frames"
    ]


def attention_is_half(model):
    floats = float_values(model)
    return not any(
        floats & {*n.input, *n.output} for n in model.graph.node if n.domain == "finedge"
    )
