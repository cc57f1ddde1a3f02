"""INT8 weights that fit sums of 16 bits: no pair is too large, and no more changes than must."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.errors import BundleError
from finedge.graph.pair_sums import PAIR_LIMIT, SCALES, fit_rows, pair_sums
from finedge.graph.reduce_range import is_exact, kernel_rows, reduce_range

ROWS = np.array(
    [
        [127, -127, 100, -20, 5],  # unlike signs
        [64, 64, -64, -64, 127],  # just fits
        [127, 3, 10, -10, 20],  # one pair, 2 too large
        [127, 127, -127, -127, 127],  # nothing fits
    ],
    np.int8,
)


@pytest.fixture
def model(tiny_files):
    return onnx.load(tiny_files["model.int8.cpu.onnx"])


def layers(model):
    """Each layer with the integers and the scale of its weights and of its bias."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    makers = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        pairs = [makers[name].input[:2] for name in node.input[1:] if name in makers]
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            yield node, [(tensors[value], tensors[scale]) for value, scale in pairs]


def values(rows, scales):
    return rows / scales[:, None]


def test_the_limit_is_the_largest_that_fits_in_16_bits():
    assert 255 * PAIR_LIMIT <= 2**15 - 1 < 255 * (PAIR_LIMIT + 1)


def test_rows_that_fit_are_not_changed():
    fitted = fit_rows(ROWS[:2])
    np.testing.assert_array_equal(fitted.values, ROWS[:2])
    np.testing.assert_array_equal(fitted.scales, 1)
    assert fitted.cut == 0


def test_one_pair_that_is_a_little_too_large_is_cut_alone():
    row = np.concatenate([ROWS[2], np.full(95, 9)]).astype(np.int8)
    fitted = fit_rows(row[None])
    assert (fitted.scales == 1, fitted.cut) == (True, 1)
    assert pair_sums(fitted.values).max() <= PAIR_LIMIT
    changes = fitted.values[0].astype(int) - row
    assert np.abs(changes).sum() == 4
    assert changes.sum() == 0, "two others take the step"


def test_a_row_of_which_nothing_fits_is_scaled():
    fitted = fit_rows(ROWS[3:])
    assert SCALES[-1] <= fitted.scales[0] < 0.52
    assert pair_sums(fitted.values).max() <= PAIR_LIMIT


@pytest.mark.parametrize("length", [2, 3, 64, 577])
@pytest.mark.parametrize("one_scale", [False, True])
def test_any_rows_fit_with_a_smaller_error_than_7_bits(length, one_scale):
    rng = np.random.default_rng(length)
    rows = np.clip(np.rint(rng.normal(0, 60, (40, length))), -127, 127).astype(np.int8)
    fitted = fit_rows(rows, one_scale=one_scale)
    assert pair_sums(fitted.values).max() <= PAIR_LIMIT
    assert len(set(fitted.scales)) == 1 or not one_scale
    seven_bits = np.rint(rows * 63 / 127) * 127 / 63
    error = np.square(values(fitted.values, fitted.scales) - rows).mean()
    assert error < np.square(seven_bits - rows).mean()


@pytest.mark.parametrize("length", [64, 577])
def test_the_sum_of_a_row_is_kept_to_one_step(length):
    rows = np.clip(np.random.default_rng(1).normal(20, 50, (30, length)), -127, 127)
    rows = rows.astype(np.int8)
    fitted = fit_rows(rows)
    drift = values(fitted.values, fitted.scales).sum(axis=1) - rows.astype(int).sum(axis=1)
    assert np.abs(drift * fitted.scales).max() <= 0.5001


def test_every_layer_fits_and_depthwise_convolutions_stay_as_they_are(model):
    fitted = reduce_range(model)
    for (node, before), (_, after) in zip(layers(model), layers(fitted.model), strict=True):
        weight = after[0][0]
        if is_exact(node, weight):
            np.testing.assert_array_equal(weight, before[0][0])
        else:
            assert pair_sums(kernel_rows(node, weight)).max() <= PAIR_LIMIT
    assert 0.5 <= fitted.mean_scale < 1


def test_weights_and_biases_keep_their_values(model):
    for (_, before), (_, after) in zip(
        layers(model), layers(reduce_range(model).model), strict=True
    ):
        for (old, old_scale), (new, new_scale) in zip(before, after, strict=True):
            shape = (-1, *[1] * (new.ndim - 1)) if new_scale.size > 1 else ()
            step = new_scale.reshape(shape)
            error = np.abs(new * step - old * old_scale.reshape(shape)) / step
            assert np.median(error) <= 0.5
        ratios = [new[1] / old[1] for old, new in zip(before, after, strict=True)]
        for ratio in ratios[1:]:
            np.testing.assert_allclose(ratio, ratios[0], rtol=1e-6)


def test_the_model_is_not_changed(model):
    before = model.SerializeToString()
    reduce_range(model)
    assert model.SerializeToString() == before


def test_the_copy_is_no_larger(model):
    # The names are longer, which this small model shows.
    assert sum(t.ByteSize() for t in reduce_range(model).model.graph.initializer) <= 1.2 * sum(
        t.ByteSize() for t in model.graph.initializer
    )


def test_weights_of_an_unknown_reader_are_halved():
    """A transposed weight may be fused into a product: nobody knows with which neighbours."""
    stored = {
        "w": np.full((4, 6), 127, np.int8),
        "scale": np.float32(0.1),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float"], name="maker"),
        helper.make_node("Transpose", ["float"], ["turned"], name="turn"),
        helper.make_node("MatMul", ["x", "turned"], ["y"], name="product"),
        helper.make_node("MatMul", ["x", "other"], ["z"], name="known"),
    ]
    nodes[3].input[1] = "float"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "m"]) for n in ("y", "z")]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    fitted = reduce_range(helper.make_model(graph)).model
    weights = [numpy_helper.to_array(t) for t in fitted.graph.initializer if len(t.dims) == 2]
    assert len(weights) == 2, "each reader has its own"
    assert all(np.abs(w).max() <= PAIR_LIMIT // 2 for w in weights)
    onnx.checker.check_model(fitted)


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
