"""Each pass is exact: before and after are the same function in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from finedge.export.ops import ONNX_OPS
from finedge.export.passes import apply_passes
from finedge.export.passes.fold_norms import FoldNormsPass
from finedge.export.passes.fold_responses import FoldResponsesPass
from finedge.export.passes.global_pool import GlobalPoolPass

# float64 sums in another order
EXACT = 1e-12
RNG = np.random.default_rng(0)


def model(nodes, inputs, output, constants, *, functions=False):
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    bodies = [ir.to_proto(ONNX_OPS["CrossLayerAttention"].body())] if functions else []
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("finedge", 1)]
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, functions=bodies, opset_imports=opsets, ir_version=10)
    )


def rewritten(before, rewrite):
    graph = ir.from_proto(before)
    result = rewrite(graph)
    after = ir.to_proto(graph)
    onnx.checker.check_model(after)
    return after, result


def evaluate(proto, inputs):
    return ReferenceEvaluator(proto).run(None, inputs)[0]


def cnl(responses, *, use_bias=False, norm=True):
    """x + sum_r BN_r(z(attention_r)), the way PyTorch exports it: a chain of Adds."""
    inputs = {"x": ["b", 6, 2, 3]}
    constants = {"z": RNG.normal(size=(6, 4, 1, 1)), "bias": RNG.normal(size=6)}
    nodes, total = [], "x"
    for r in range(responses):
        inputs |= {f"q{r}": ["b", 4, 2, 3], f"k{r}": ["b", 4, 5, 4]}
        nodes.append(
            helper.make_node(
                "CrossLayerAttention",
                [f"q{r}", f"k{r}", f"k{r}"],
                [f"y{r}"],
                domain="finedge",
                scale=0.5,
            )
        )
        nodes.append(
            helper.make_node(
                "Conv",
                [f"y{r}", "z", *(["bias"] if use_bias else [])],
                [f"c{r}"],
                kernel_shape=[1, 1],
            )
        )
        last = f"c{r}"
        if norm:
            constants |= {
                f"{k}{r}": RNG.uniform(0.5, 2, 6) for k in ("gamma", "beta", "mean", "var")
            }
            nodes.append(
                helper.make_node(
                    "BatchNormalization",
                    [last, *(f"{k}{r}" for k in ("gamma", "beta", "mean", "var"))],
                    [f"n{r}"],
                    epsilon=1e-3,
                )
            )
            last = f"n{r}"
        nodes.append(helper.make_node("Add", [total, last], [f"s{r}"], name=f"add{r}"))
        total = f"s{r}"
    return model(nodes, inputs, total, constants, functions=True)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("responses", [2, 5])
def test_folding_the_responses_is_exact_and_leaves_one_convolution(responses, norm, use_bias):
    before = cnl(responses, norm=norm, use_bias=use_bias)
    after, _ = rewritten(before, lambda m: apply_passes(m))
    inputs = {
        i.name: RNG.normal(size=[2, *(d.dim_value for d in i.type.tensor_type.shape.dim[1:])])
        for i in before.graph.input
    }
    assert np.abs(evaluate(before, inputs) - evaluate(after, inputs)).max() < EXACT
    assert [n.op_type for n in after.graph.node if n.domain == ""] == ["Concat", "Conv", "Add"]
    assert after.graph.output[0].name == before.graph.output[0].name


def normalised(*, second):
    """Two projections of a map after a BatchNorm; `second` is the op of the second reader."""
    names = ("gamma", "beta", "mean", "var")
    constants = {k: RNG.uniform(0.5, 2, 3) for k in names}
    constants |= {"w0": RNG.normal(size=(4, 3, 1, 1)), "b0": RNG.normal(size=4)}
    constants |= {"w1": RNG.normal(size=(4, 3, 1, 1))}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["n"], epsilon=1e-3),
        helper.make_node("Conv", ["n", "w0", "b0"], ["k"], kernel_shape=[1, 1], name="phi"),
    ]
    if second == "Conv":
        nodes.append(helper.make_node("Conv", ["n", "w1"], ["v"], kernel_shape=[1, 1], name="g"))
    else:
        nodes += [
            helper.make_node("Relu", ["n"], ["r"]),
            helper.make_node("Conv", ["r", "w1"], ["v"], kernel_shape=[1, 1], name="g"),
        ]
    nodes.append(helper.make_node("Mul", ["k", "v"], ["y"]))
    return model(nodes, {"x": ["b", 3, 5, 4]}, "y", constants)


def test_a_norm_before_projections_becomes_part_of_them_exactly():
    before = normalised(second="Conv")
    after, _ = rewritten(before, lambda m: apply_passes(m))
    inputs = {"x": RNG.normal(size=(2, 3, 5, 4))}
    assert np.abs(evaluate(before, inputs) - evaluate(after, inputs)).max() < EXACT
    assert [n.op_type for n in after.graph.node] == ["Conv", "Conv", "Mul"]


def test_a_norm_that_something_else_reads_stays():
    after, result = rewritten(normalised(second="Relu"), FoldNormsPass())
    assert not result.modified
    assert "BatchNormalization" in [n.op_type for n in after.graph.node]


def test_a_single_response_is_left_alone():
    before = cnl(1)
    after, result = rewritten(before, FoldResponsesPass())
    assert not result.modified
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]


def test_a_response_that_something_else_reads_is_left_alone():
    before = cnl(2)
    before.graph.node.append(helper.make_node("Neg", ["c0"], ["other"]))
    before.graph.output.append(
        helper.make_tensor_value_info("other", TensorProto.DOUBLE, ["b", 6, 2, 3])
    )
    _, result = rewritten(before, FoldResponsesPass())
    assert not result.modified


def test_theta_computed_for_each_response_becomes_one():
    nodes = [helper.make_node("Conv", ["x", "w"], [f"t{r}"], kernel_shape=[1, 1]) for r in range(3)]
    nodes += [
        helper.make_node("Add", ["t0", "t1"], ["s"]),
        helper.make_node("Mul", ["s", "t2"], ["y"]),
    ]
    before = model(nodes, {"x": ["b", 4, 3, 3]}, "y", {"w": RNG.normal(size=(2, 4, 1, 1))})
    after, _ = rewritten(before, lambda m: apply_passes(m))
    x = {"x": RNG.normal(size=(2, 4, 3, 3))}
    assert [n.op_type for n in after.graph.node].count("Conv") == 1
    assert np.array_equal(evaluate(before, x), evaluate(after, x))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [-2, 3]])
def test_the_spatial_mean_becomes_a_pool(axes, keep):
    before = model(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keep)],
        {"x": ["b", 4, 3, 5]},
        "y",
        {"axes": np.array(axes)},
    )
    after, _ = rewritten(before, GlobalPoolPass())
    x = {"x": RNG.normal(size=(2, 4, 3, 5))}
    assert after.graph.node[0].op_type == "GlobalAveragePool"
    assert evaluate(after, x).shape == evaluate(before, x).shape
    assert np.abs(evaluate(before, x) - evaluate(after, x)).max() < EXACT


@pytest.mark.parametrize("axes", [[1], [1, 2, 3], [3]])
def test_other_means_are_left_alone(axes):
    before = model(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"])],
        {"x": ["b", 4, 3, 5]},
        "y",
        {"axes": np.array(axes)},
    )
    _, result = rewritten(before, GlobalPoolPass())
    assert not result.modified
