"""Rewritten forms are exact, and right in readers that compute the usual form wrong.

Both engines of OpenCV are tried.
"""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from finedge.export.ops import ONNX_OPS
from finedge.export.passes import apply_passes
from finedge.graph.inlining import inline
from finedge.ops import DOMAIN, OPS
from finedge.runtime.explain.graph import Graph

EXACT = 1e-12  # float64, sums in another order
CLOSE = 1e-5  # float32, sums of at most 147 products
RNG = np.random.default_rng(0)
ENGINES = [e for e in ("ENGINE_AUTO", "ENGINE_CLASSIC") if hasattr(cv2.dnn, e)] or [""]
engine = pytest.mark.parametrize("engine", ENGINES)


def graph_of(nodes, inputs, constants, *, kind=np.float32):
    """A model from nodes; what is called y is the output, inputs have an open batch."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    taken = [
        helper.make_tensor_value_info(name, element, ["b", *shape[1:]])
        for name, shape in inputs.items()
    ]
    stored = {
        n: np.asarray(a, kind if np.asarray(a).dtype.kind == "f" else None)
        for n, a in constants.items()
    }
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(
        nodes, "g", taken, [helper.make_tensor_value_info("y", element, None)], tensors
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    bodies = [ir.to_proto(face.body()) for face in ONNX_OPS.values()]
    used = [b for b in bodies if b.name in {n.op_type for n in nodes}]
    model = helper.make_model(graph, functions=used, opset_imports=opsets, ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def rewritten(model):
    changed = ir.from_proto(model)
    apply_passes(changed)
    after = ir.to_proto(changed)
    onnx.checker.check_model(after, full_check=True)
    return after


def ops(model):
    return [n.op_type for n in model.graph.node]


def evaluate(model, inputs):
    return ReferenceEvaluator(model).run(None, inputs)[0]


def in_opencv(model, inputs, *, engine, folder):
    path = folder / "model.onnx"
    onnx.save(inline(model), path)
    net = cv2.dnn.readNetFromONNX(str(path), *([getattr(cv2.dnn, engine)] if engine else []))
    for name, value in inputs.items():
        net.setInput(value, name)
    return net.forward()


def log_softmax(kind=np.float32):
    nodes = [helper.make_node("LogSoftmax", ["x"], ["y"], name="log_softmax", axis=2)]
    return graph_of(nodes, {"x": (1, 2, 3)}, {}, kind=kind), drawn({"x": (1, 2, 3)}, kind)


def spread(kind=np.float32):
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["wide"], name="spread"),
        helper.make_node("Mul", ["maps", "wide"], ["y"], name="weigh"),
    ]
    shapes = {"x": (1, 4), "maps": (1, 5, 4, 3)}
    return graph_of(nodes, shapes, {"axes": np.array([3, 1])}, kind=kind), drawn(shapes, kind)


def spatial_gate(kind=np.float32):
    """x times a mask of one channel, both out of convolutions."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="features"),
        helper.make_node("Conv", ["c", "k"], ["s"], name="scores", pads=[3] * 4),
        helper.make_node("Sigmoid", ["s"], ["mask"], name="sigmoid"),
        helper.make_node("Mul", ["c", "mask"], ["gated"], name="gate"),
        helper.make_node("Conv", ["gated", "v"], ["y"], name="last"),
    ]
    return graph_of(nodes, {"x": (1, 3, 6, 5)}, weights(), kind=kind), drawn(
        {"x": (1, 3, 6, 5)}, kind
    )


def joint_gate(kind=np.float32):
    """x times the mask of a sum of two broadcast scores, one a channel and one a position."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="features"),
        helper.make_node("Conv", ["c", "k"], ["s"], name="scores", pads=[3] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"], name="pool"),
        helper.make_node("Conv", ["pooled", "e"], ["m"], name="channel"),
        helper.make_node("Add", ["m", "s"], ["both"], name="sum"),
        helper.make_node("Sigmoid", ["both"], ["mask"], name="sigmoid"),
        helper.make_node("Mul", ["c", "mask"], ["y"], name="gate"),
    ]
    return graph_of(nodes, {"x": (1, 3, 6, 5)}, weights(), kind=kind), drawn(
        {"x": (1, 3, 6, 5)}, kind
    )


def channel_gate(kind=np.float32):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="features"),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"], name="pool"),
        helper.make_node("Conv", ["pooled", "e"], ["m"], name="channel"),
        helper.make_node("Sigmoid", ["m"], ["mask"], name="sigmoid"),
        helper.make_node("Mul", ["c", "mask"], ["y"], name="gate"),
    ]
    return graph_of(nodes, {"x": (1, 3, 6, 5)}, weights(), kind=kind), drawn(
        {"x": (1, 3, 6, 5)}, kind
    )


def weights():
    shapes = {"w": (16, 3, 1, 1), "k": (1, 16, 7, 7), "v": (5, 16, 1, 1), "e": (16, 16, 1, 1)}
    return {
        name: 0.2 * np.random.default_rng(1).normal(size=shape) for name, shape in shapes.items()
    }


def drawn(shapes, kind):
    return {name: RNG.normal(size=shape).astype(kind) for name, shape in shapes.items()}


FORMS = pytest.mark.parametrize(
    "case", [log_softmax, spread, spatial_gate, joint_gate, channel_gate]
)


@FORMS
def test_the_forms_are_exact_and_keep_the_name_of_the_output(case):
    model, inputs = case(np.float64)
    after = rewritten(model)
    assert np.abs(evaluate(after, inputs) - evaluate(model, inputs)).max() < EXACT
    assert after.graph.output[0].name == "y"


@FORMS
@engine
def test_opencv_computes_them_right(tmp_path, case, engine):
    model, inputs = case()
    found = in_opencv(rewritten(model), inputs, engine=engine, folder=tmp_path)
    expected = evaluate(model, inputs)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < CLOSE * max(1, np.abs(expected).max())


@engine
def test_a_probability_that_float32_cannot_hold_has_its_logarithm(tmp_path, engine):
    inputs = {"x": np.array([[[0, 200, -200], [1, 1, 1]]], np.float32)}
    found = in_opencv(rewritten(log_softmax()[0]), inputs, engine=engine, folder=tmp_path)
    assert found == pytest.approx(np.array([[[-200, 0, -400], [-np.log(3)] * 3]]))


def test_what_opencv_takes_is_left_alone():
    assert ops(rewritten(channel_gate()[0])) == ops(channel_gate()[0])
    assert "LogSoftmax" not in ops(rewritten(log_softmax()[0]))
    assert ops(rewritten(spread()[0])) == ["Unsqueeze", "Unsqueeze", "Mul"]
    assert ops(rewritten(spatial_gate()[0])).count("Reshape") == 1
    assert ops(rewritten(joint_gate()[0])).count("Reshape") == 3


@engine
def test_opencv_reads_one_attention_behind_another(tmp_path, engine):
    """It drops the first of two Reshapes, though a 0 in the second means a size of the first."""
    nodes = [
        helper.make_node(
            "ChannelAttention", ["x", "x", "x"], ["a"], name="a", domain=DOMAIN, groups=4, scale=0.3
        ),
        helper.make_node(
            "CrossLayerAttention", ["a", "a", "a"], ["y"], name="b", domain=DOMAIN, scale=0.3
        ),
    ]
    model, inputs = graph_of(nodes, {"x": (1, 8, 3, 2)}, {}), drawn({"x": (1, 8, 3, 2)}, np.float32)
    # As the exporter writes it: a map's size is known.
    between = helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["b", 8, 3, 2])
    model.graph.value_info.append(between)
    first = OPS["ChannelAttention"].reference(*[inputs["x"]] * 3, groups=4, scale=0.3)
    expected = OPS["CrossLayerAttention"].reference(first, first, first, scale=0.3)
    found = in_opencv(model, inputs, engine=engine, folder=tmp_path)
    assert found == pytest.approx(expected, abs=CLOSE)


def test_explain_finds_the_linear_layer_in_front_of_a_log_softmax():
    weight = RNG.normal(size=(4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["logits"], name="linear", transB=1),
        helper.make_node("LogSoftmax", ["logits"], ["y"], name="log_softmax", axis=1),
    ]
    model = rewritten(graph_of(nodes, {"x": (1, 6)}, {"w": weight}))
    assert "Sub" in ops(model)
    assert np.array_equal(Graph(model).linear("y").weight, weight)
