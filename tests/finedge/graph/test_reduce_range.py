"""Weights cut to 7 bits: smaller numbers, the same model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.errors import BundleError
from finedge.graph.reduce_range import HIGH, LOW, to_seven_bits
from finedge.runtime.backend import REDUCED_RANGE, SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE

pytestmark = pytest.mark.int8


@pytest.fixture
def model(tiny_bundle):
    return onnx.load(tiny_bundle.file("model.int8.cpu.onnx"))


def stored(model):
    """The dequantized value of every DequantizeLinear on an initializer, in order, with the stored integers."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [
        n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in tensors
    ]
    return [(tensors[n.input[0]], tensors[n.input[1]]) for n in nodes]


def channel_scale(values, scale):
    return scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.size > 1 else scale


def test_every_weight_lies_within_7_bits_and_keeps_its_value_to_half_a_step(model):
    before, after = stored(model), stored(to_seven_bits(model))
    kinds = {v.dtype for v, _ in after}
    assert kinds == {np.dtype(np.int8), np.dtype(np.int32)}, (
        "the tiny model stores weights and biases"
    )
    for (old, old_scale), (new, new_scale) in zip(before, after, strict=True):
        if new.dtype == np.int8:
            assert new.min() >= LOW
            assert new.max() <= HIGH
        step = channel_scale(new, new_scale)
        assert np.all(np.abs(new * step - old * channel_scale(old, old_scale)) <= 0.5001 * step)


def test_bias_and_weight_scales_stay_in_proportion(model):
    ratios = [
        n / o for (_, o), (_, n) in zip(stored(model), stored(to_seven_bits(model)), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate([r.ravel() for r in ratios]), 127 / 63, rtol=1e-6)


def test_the_given_model_is_left_as_it_was(model):
    before = model.SerializeToString()
    to_seven_bits(model)
    assert model.SerializeToString() == before


def test_the_copy_is_no_larger(model):
    assert sum(t.ByteSize() for t in to_seven_bits(model).graph.initializer) <= 1.1 * sum(
        t.ByteSize() for t in model.graph.initializer
    )


def test_the_7_bit_session_answers_as_the_8_bit_file(tiny_bundle, frames, monkeypatch):
    from finedge.runtime.classifier import Classifier

    monkeypatch.setenv(OVERRIDE, "saturating")
    answers = {}
    for reduce_range in (False, True):
        session = OnnxRuntimeBackend(SessionOptions(exact=not reduce_range)).open(
            tiny_bundle, variant="int8"
        )
        assert (session.info.precision == REDUCED_RANGE) is reduce_range
        answers[reduce_range] = session(Classifier(tiny_bundle, session, "int8").prepare(frames))[
            "logits"
        ]
    assert not np.array_equal(answers[True], answers[False])
    assert (answers[True].argmax(axis=1) == answers[False].argmax(axis=1)).all()
    cosine = (
        (answers[True] * answers[False]).sum()
        / np.linalg.norm(answers[True])
        / np.linalg.norm(answers[False])
    )
    assert cosine > 0.999


def test_a_float_model_and_an_asymmetric_weight_are_refused(tiny_bundle, model):
    with pytest.raises(BundleError, match="no signed 8-bit weights"):
        to_seven_bits(onnx.load(tiny_bundle.file("model.fp32.onnx")))
    zero = next(
        n.input[2]
        for n in model.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0].startswith("kernels")
    )
    tensor = next(t for t in model.graph.initializer if t.name == zero)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(3), zero))
    with pytest.raises(BundleError, match="zero point"):
        to_seven_bits(model)
