"""Weights cut to 7 bits: smaller numbers, the same model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.errors import BundleError
from finedge.graph.reduce_range import HIGH, LOW, reduce_range


@pytest.fixture
def model(tiny_files):
    return onnx.load(tiny_files["model.int8.cpu.onnx"])


def stored(model):
    """The stored integers and the scale of every DequantizeLinear on an initializer, in order."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [
        n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in tensors
    ]
    return [(tensors[n.input[0]], tensors[n.input[1]]) for n in nodes]


def channel_scale(values, scale):
    return scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.size > 1 else scale


def test_weights_lie_within_7_bits_and_keep_their_value_to_half_a_step(model):
    before, after = stored(model), stored(reduce_range(model))
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
        n / o for (_, o), (_, n) in zip(stored(model), stored(reduce_range(model)), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate([r.ravel() for r in ratios]), 127 / 63, rtol=1e-6)


def test_the_model_is_not_changed(model):
    before = model.SerializeToString()
    reduce_range(model)
    assert model.SerializeToString() == before


def test_the_copy_is_no_larger(model):
    assert sum(t.ByteSize() for t in reduce_range(model).graph.initializer) <= 1.1 * sum(
        t.ByteSize() for t in model.graph.initializer
    )


def test_a_float_model_and_an_asymmetric_weight_are_refused(tiny_files, model):
    with pytest.raises(BundleError, match="no signed 8-bit weights"):
        reduce_range(onnx.load(tiny_files["model.fp32.onnx"]))
    zero = next(
        n.input[2]
        for n in model.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0].startswith("kernels")
    )
    tensor = next(t for t in model.graph.initializer if t.name == zero)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(3), zero))
    with pytest.raises(BundleError, match="zero point"):
        reduce_range(model)
