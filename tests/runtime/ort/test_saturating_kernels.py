"""A numpy reference of ONNX Runtime's INT8 kernels equals their answers bit for bit.

On a CPU without VNNI (`make test-avx2`) that is the reference with sums of 16 bits: so it is known
which weights are neighbours. Weights of `reduce_range` never saturate, on any CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.graph.reduce_range import reduce_range
from finedge.runtime.ort.int8_products import measured_products
from tests.runtime.ort.saturating_kernels import Sums, convolved, requantized, summed

pytestmark = pytest.mark.int8

SCALE = np.float32(0.05)


@dataclass(frozen=True)
class ConvCase:
    """A convolution: `channels` in and out, a square kernel."""

    channels: tuple[int, int]
    kernel: int = 1
    groups: int = 1
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: int = 1
    kind: type[np.integer] = np.uint8
    size: int = 6

    @property
    def is_depthwise(self):
        return self.groups == self.channels[1] and self.groups == self.channels[0]

    @property
    def attributes(self):
        return {
            "strides": (self.stride, self.stride),
            "pads": self.pads,
            "dilations": (self.dilation, self.dilation),
        }


CONVOLUTIONS = {
    "pointwise": ConvCase((16, 32)),
    "pointwise, stride 2": ConvCase((8, 16), stride=2),
    "pointwise, odd channels": ConvCase((7, 24)),
    "pointwise, few outputs": ConvCase((16, 5)),
    "pointwise, long sum": ConvCase((520, 9), size=2),
    "3x3": ConvCase((8, 16), kernel=3, pads=(1, 1, 1, 1)),
    "3x3, odd channels": ConvCase((5, 16), kernel=3, pads=(1, 0, 0, 1)),
    "3x3, dilated": ConvCase((4, 16), kernel=3, dilation=2),
    "5x5, stride 2": ConvCase((12, 17), kernel=5, stride=2, pads=(2, 2, 2, 2)),
    "stem": ConvCase((3, 32), kernel=3, stride=2, pads=(1, 1, 1, 1), size=9),
    "groups": ConvCase((8, 16), kernel=3, groups=2),
    "groups, odd": ConvCase((9, 12), kernel=3, groups=3, pads=(1, 1, 1, 1)),
    "one input a group": ConvCase((8, 16), kernel=3, groups=8),
    "depthwise": ConvCase((16, 16), kernel=3, groups=16, pads=(1, 1, 1, 1)),
    "depthwise, odd channels": ConvCase((13, 13), kernel=5, groups=13, pads=(2, 2, 2, 2)),
    "signed pointwise": ConvCase((16, 32), kind=np.int8),
    "signed 3x3": ConvCase((6, 16), kernel=3, pads=(1, 1, 1, 1), kind=np.int8),
}
# rows, K, N, zero point, op
PRODUCTS = [
    (rows, inner, outer, zero, op)
    for op in ("Gemm", "MatMul")
    for rows, inner, outer in ((1, 64, 16), (5, 64, 33), (1, 17, 5), (4, 401, 16), (1, 402, 40))
    for zero in (0, 9)
]


def large_weights(shape: tuple[int, ...]) -> np.ndarray:
    """Weights of all sizes, so many that are large that some pairs leave 16 bits."""
    rng = np.random.default_rng(sum(shape))
    return np.clip(rng.normal(0, 70, shape).round(), -127, 127).astype(np.int8)


def large_inputs(shape: tuple[int, ...], kind: type[np.integer]) -> np.ndarray:
    rng = np.random.default_rng(7)
    top = np.clip(rng.normal(200, 60, shape), 0, 255).astype(np.int64)
    return (top + np.iinfo(kind).min).astype(kind)


def quantized_model(node, x, constants, *, y_scale=None, y_zero=None) -> onnx.ModelProto:
    """A Q/DQ model of one layer; it takes and, with `y_scale`, returns integers."""
    inner = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_float"]),
        helper.make_node(
            "DequantizeLinear",
            ["w", "w_scale", "w_zero"],
            ["w_float"],
            axis=1 if node.op_type == "MatMul" else 0,
        ),
    ]
    if "b" in constants:
        inner.append(helper.make_node("DequantizeLinear", ["b", "b_scale"], ["b_float"], axis=0))
    inner.append(node)
    kind = TensorProto.FLOAT
    if y_scale is not None:
        constants = {**constants, "y_scale": y_scale, "y_zero": y_zero}
        inner.append(helper.make_node("QuantizeLinear", ["sum", "y_scale", "y_zero"], ["y"]))
        kind = helper.np_dtype_to_tensor_dtype(y_zero.dtype)
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    of_x = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", of_x, x.shape)]
    outputs = [helper.make_tensor_value_info("sum" if y_scale is None else "y", kind, None)]
    graph = helper.make_graph(inner, "layer", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    return session.run(None, {"x": x})[0]


def stored(model: onnx.ModelProto, layer: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The integers that a layer reads, and their scale."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    makers = {n.output[0]: n for n in model.graph.node}
    reader = next(n for n in model.graph.node if n.op_type == layer)
    maker = makers[reader.input[index]]
    return tensors[maker.input[0]], tensors[maker.input[1]]


def as_unsigned(x: np.ndarray, zero: int) -> tuple[np.ndarray, int]:
    """Signed activations have 128 added before the kernel sees them."""
    shift = 128 if x.dtype == np.int8 else 0
    return x.astype(np.int64) + shift, zero + shift


def conv_sums(case: ConvCase, x, w, *, zero: int, bits: int) -> Sums:
    raw, raw_zero = as_unsigned(x, zero)
    return convolved(raw, w, zero=raw_zero, groups=case.groups, bits=bits, **case.attributes)


def conv_answer(case: ConvCase, model, x, *, zero: int, bits: int) -> np.ndarray:
    """What the reference says that a model of a convolution answers."""
    (w, w_scale), (b, _) = stored(model, "Conv", 1), stored(model, "Conv", 2)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    sums = np.moveaxis(conv_sums(case, x, w, zero=zero, bits=bits).values, 1, -1) + b
    scale = SCALE * w_scale / tensors["y_scale"]
    y_zero = int(tensors["y_zero"])
    whole = requantized(sums, scale.astype(np.float32), zero=y_zero, kind=case.kind)
    return np.moveaxis(whole, -1, 1)


def conv_model(case: ConvCase, zero: int) -> tuple[onnx.ModelProto, np.ndarray]:
    inner, outer = case.channels
    w = large_weights((outer, inner // case.groups, case.kernel, case.kernel))
    x = large_inputs((1, inner, case.size, case.size), case.kind)
    sums = conv_sums(case, x, w, zero=zero, bits=32).values
    w_scale = np.linspace(0.01, 0.02, outer).astype(np.float32)
    b = np.arange(outer, dtype=np.int32) * 37 - 200
    real = np.moveaxis(sums, 1, -1) * (SCALE * w_scale)
    constants = {
        "x_scale": SCALE,
        "x_zero": case.kind(zero),
        "w": w,
        "w_scale": w_scale,
        "w_zero": np.zeros(outer, np.int8),
        "b": b,
        "b_scale": (SCALE * w_scale).astype(np.float32),
    }
    node = helper.make_node(
        "Conv", ["x_float", "w_float", "b_float"], ["sum"], group=case.groups, **case.attributes
    )
    y_zero = case.kind(np.iinfo(case.kind).min + 120)
    model = quantized_model(
        node, x, constants, y_scale=np.float32(np.abs(real).max() / 110), y_zero=y_zero
    )
    return model, x


def kernel_bits() -> int:
    return 32 if measured_products() == "exact" else 16


@pytest.mark.parametrize("zero", [0, 11])
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_reference_predicts_saturated_convolutions_exactly(case, zero):
    model, x = conv_model(case, zero)
    w, _ = stored(model, "Conv", 1)
    clamped = conv_sums(case, x, w, zero=zero, bits=16).clamped
    assert (clamped == 0) is case.is_depthwise
    expected = conv_answer(case, model, x, zero=zero, bits=kernel_bits())
    np.testing.assert_array_equal(answer(model, x), expected)


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_fitted_convolutions_are_exact_on_every_cpu(case):
    model, x = conv_model(case, 11)
    fitted = reduce_range(model).model
    w, _ = stored(fitted, "Conv", 1)
    top = np.full_like(x, np.iinfo(case.kind).max)
    for inputs in (x, top):
        assert conv_sums(case, inputs, w, zero=11, bits=16).clamped == 0
        expected = conv_answer(case, fitted, inputs, zero=11, bits=32)
        np.testing.assert_array_equal(answer(fitted, inputs), expected)
    if case.is_depthwise:
        np.testing.assert_array_equal(w, stored(model, "Conv", 1)[0])


def product_model(inner: int, outer: int, zero: int, op: str) -> onnx.ModelProto:
    rows_of_w = large_weights((outer, inner))
    constants = {
        "x_scale": SCALE,
        "x_zero": np.uint8(zero),
        "w": rows_of_w if op == "Gemm" else np.ascontiguousarray(rows_of_w.T),
        "w_scale": np.linspace(0.01, 0.02, outer).astype(np.float32),
        "w_zero": np.zeros(outer, np.int8),
    }
    attributes = {"transB": 1} if op == "Gemm" else {}
    node = helper.make_node(op, ["x_float", "w_float"], ["sum"], **attributes)
    return quantized_model(node, np.zeros((1, inner), np.uint8), constants)


def product_sums(model, x, *, zero: int, op: str, bits: int) -> Sums:
    w, _ = stored(model, op, 1)
    rows_of_w = w if op == "Gemm" else w.T
    sums = summed(x, rows_of_w, bits=bits)
    return Sums(sums.values - zero * rows_of_w.astype(np.int64).sum(axis=1), sums.clamped)


@pytest.mark.parametrize(("rows", "inner", "outer", "zero", "op"), PRODUCTS)
def test_the_reference_predicts_saturated_products_exactly(rows, inner, outer, zero, op):
    model = product_model(inner, outer, zero, op)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    x = large_inputs((rows, inner), np.uint8)
    assert product_sums(model, x, zero=zero, op=op, bits=16).clamped > 0
    for tried, bits in ((model, kernel_bits()), (reduce_range(model).model, 32)):
        sums = product_sums(tried, x, zero=zero, op=op, bits=bits).values
        scale = SCALE * stored(tried, op, 1)[1]
        np.testing.assert_array_equal(answer(tried, x), sums.astype(np.float32) * scale)
