"""float16: right types everywhere, Casts only where they must be, nothing clamped."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from finedge.errors import FinedgeError
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16, float_values
from finedge.graph.keep_float32 import keep_float32

HALF_ROUNDING = 2e-3  # a few roundings of 2^-11 on numbers near 1
X = np.random.default_rng(0).normal(0, 1, (2, 4)).astype(np.float32)
CAST_LIKE = helper.make_function(
    "own",
    "Scaled",
    ["s__x"],
    ["s__y"],
    [
        helper.make_node("Constant", [], ["s__c"], value_float=0.5),
        helper.make_node("CastLike", ["s__c", "s__x"], ["s__f"]),
        helper.make_node("Mul", ["s__x", "s__f"], ["s__y"]),
    ],
    [helper.make_opsetid("", 20)],
)


def node(op, inputs, output, **attributes):
    return helper.make_node(
        op,
        inputs.split(),
        output.split(),
        name=attributes.pop("name", output.split()[0]),
        **attributes,
    )


def model(*nodes, functions=(), outputs=("y",), **constants):
    """A graph from x [B, 4] to its outputs; names of nodes are those of their first outputs."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["B", 4]) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def run(m):
    onnx.checker.check_model(m, full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(
        m.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    ).run(None, {"x": X})


def kinds(m):
    """Tensor name -> float16 or float32, of all floats."""
    graph = onnx.shape_inference.infer_shapes(m, strict_mode=True).graph
    found = {
        v.name: v.type.tensor_type.elem_type
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    found |= {t.name: t.data_type for t in graph.initializer}
    return {
        k: {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}.get(v, "")
        for k, v in found.items()
    }


def casts(m):
    return sum(n.op_type == "Cast" for n in m.graph.node)


W = np.eye(4, dtype=np.float32) * 0.5


def test_inside_is_float16_and_outside_stays_what_it_was():
    full = model(node("MatMul", "x w", "a"), node("Relu", "a", "y"), w=W)
    before = full.SerializeToString()
    half = convert_float16(full, keep=())
    assert {k: kinds(half)[k] for k in ("x", "a", "y", "y/half", "w/half")} == {
        "x": "float32",
        "a": "float16",
        "y": "float32",
        "y/half": "float16",
        "w/half": "float16",
    }
    assert casts(half) == 2
    assert "w" not in {t.name for t in half.graph.initializer}
    np.testing.assert_allclose(run(half)[0], run(full)[0], atol=HALF_ROUNDING)
    assert full.SerializeToString() == before


def test_a_kept_node_is_float32_and_keeps_its_shared_constant_exact():
    full = model(
        node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("Add", "a b", "y"), w=W
    )
    half = convert_float16(full, keep=["b"])
    found = kinds(half)
    assert (found["a"], found["b"], found["w"], found["w/half"]) == (
        "float16",
        "float32",
        "float32",
        "float16",
    )
    assert casts(half) == 4, "x, a for the kept node, b behind it, y"
    np.testing.assert_allclose(run(half)[0], run(full)[0], atol=HALF_ROUNDING)


def test_an_output_that_is_also_read_inside_is_cast_once_for_each_type():
    half = convert_float16(
        model(
            node("Relu", "x", "a"),
            node("Neg", "a", "b"),
            node("Abs", "a", "c"),
            outputs=("a", "b", "c"),
        ),
        keep=["c"],
    )
    assert [o.name for o in half.graph.output] == ["a", "b", "c"]
    assert casts(half) == 3
    assert [r.dtype for r in run(half)] == [np.float32] * 3


@pytest.mark.parametrize("value", [70000.0, 1e-8, 1e-12])
def test_a_constant_that_float16_cannot_hold_keeps_its_node_float32(value, caplog):
    full = model(node("Mul", "x c", "a"), node("Relu", "a", "y"), c=np.float32(value))
    with caplog.at_level(logging.WARNING):
        half = convert_float16(full, keep=())
    assert kinds(half)["a"] == "float32"
    assert "'a' (Mul) stays float32" in caplog.text
    if value > 1:
        assert run(half)[0].max() > 0
    assert run(convert_float16(full, keep=["a", "y"]))[0].max() == run(full)[0].max()


def test_single_small_weights_are_rounded_like_any_other():
    w = W.copy()
    w[0, 1] = 1e-9
    half = convert_float16(model(node("MatMul", "x w", "y"), w=w), keep=())
    assert kinds(half)["y/half"] == "float16"


def test_constants_in_nodes_and_casts_follow():
    full = model(
        node("Constant", "", "c", value=numpy_helper.from_array(np.float32(0.25))),
        node("Constant", "", "d", value_float=2.0),
        node("Shape", "x", "s"),
        node("Cast", "s", "n", to=TensorProto.FLOAT),
        node("ReduceMax", "n", "m", keepdims=0),
        node("Mul", "x c", "a"),
        node("Mul", "a d", "b"),
        node("Add", "b m", "y"),
    )
    half = convert_float16(full, keep=())
    assert {kinds(half)[k] for k in ("a", "b", "n", "m")} == {"float16"}
    assert casts(half) == 3, "x, the integer's own, y"
    np.testing.assert_allclose(run(half)[0], run(full)[0], rtol=HALF_ROUNDING, atol=HALF_ROUNDING)


def test_a_function_computes_in_its_inputs_type_inlined_or_not():
    full = model(
        node("Scaled", "x", "a", domain="own"), node("Relu", "a", "y"), functions=[CAST_LIKE]
    )
    for form in (full, inline_local_functions(full)):
        half = convert_float16(form, keep=())
        assert casts(half) == 2
        assert kinds(half)["a"] == "float16"
        np.testing.assert_allclose(run(half)[0], run(full)[0], atol=HALF_ROUNDING)


def test_a_node_without_a_function_hands_on_what_it_reads():
    bare = model(
        node("Plugged", "x", "a", domain="own"),
        node("Relu", "a", "b"),
        node("Plugged", "b", "y", domain="own"),
    )
    half = convert_float16(bare, keep=["b"])
    by_name = {n.name: n for n in half.graph.node}
    assert float_values(bare) >= {"x", "a", "b", "y"}
    assert (by_name["a"].input[0], by_name["b"].input[0], by_name["y"].input[0]) == (
        "x/half",
        "a/float",
        "b/half",
    )


def test_names_are_made_unique_and_must_be():
    twice = model(
        node("Relu", "x", "a", name="n"),
        node("Neg", "a", "b", name="n"),
        node("Abs", "b", "y", name=""),
    )
    with pytest.raises(FinedgeError, match="2 nodes are named 'n'"):
        convert_float16(twice, keep=["n"])
    named = with_unique_names(twice)
    assert len({n.name for n in named.graph.node}) == 3
    assert named.graph.node[0].name == "n"
    with pytest.raises(FinedgeError, match="0 nodes"):
        convert_float16(named, keep=["m"])


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t"])],
        "b",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    flow = model(node("If", "c", "y", then_branch=branch, else_branch=branch), c=np.bool_(True))
    with pytest.raises(FinedgeError, match="subgraph"):
        convert_float16(flow, keep=())


def test_what_is_fragile_has_a_reason_and_what_lies_between_joins_it():
    full = model(
        node("Mul", "x scale", "pixels"),
        node("MatMul", "pixels w", "a"),
        node("Softmax", "a", "inner"),
        node("MatMul", "inner w", "b"),
        node("Mul", "b b", "square"),
        node("ReduceSum", "square axes", "sum", keepdims=1),
        node("Abs", "sum", "between"),
        node("Sqrt", "between", "root"),
        node("Div", "b root", "unit"),
        node("MatMul", "unit w", "c"),
        node("Div", "c scale", "tempered"),
        node("LogSoftmax", "tempered", "y"),
        w=W,
        scale=np.float32(3),
        axes=np.array([1], np.int64),
    )
    found = keep_float32(full.graph)
    assert set(found) == {"pixels", "square", "sum", "between", "root", "unit", "y"}
    assert casts(convert_float16(full, keep=found)) == 4, (
        "in front of a, b; behind unit; in front of y"
    )
    assert Counter(n.op_type for n in convert_float16(full, keep=found).graph.node)["Softmax"] == 1
