"""Models that TensorRT's real parser (TensorRT for RTX) builds wrongly without a warning.

The first half shows on the library that the danger exists. If one of these tests fails after an
update, the library got better. No exported graph has these forms: tests/flow/test_engines.py checks
every model and every file of its bundle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, inliner, numpy_helper

from finedge import ops
from finedge.errors import FinedgeError
from finedge.export.ops import ONNX_OPS, add_bodies
from finedge.runtime.trt.build.compiler import BuildOrder, compile_engine
from finedge.runtime.trt.build.expect import check_layers
from finedge.runtime.trt.build.options import BuildOptions, build_target
from finedge.runtime.trt.build.read_layers import from_log
from finedge.runtime.trt.library import load_library, why_not
from finedge.runtime.trt.log import collected, logger


@pytest.fixture(scope="module")
def rtx():
    if why_not("tensorrt-rtx"):
        pytest.skip(why_not("tensorrt-rtx"))
    return load_library("tensorrt-rtx")


@pytest.fixture
def parse(rtx):
    """Return a function that parses a model: to its first output's shape and its layers."""

    def run(model):
        trt = rtx.trt
        with collected(trt):
            builder = trt.Builder(logger(trt))
            network = builder.create_network(0)
            parser = trt.OnnxParser(network, logger(trt))
            assert parser.parse(model.SerializeToString()), parser.get_error(0).desc()
            return tuple(network.get_output(0).shape), [
                network.get_layer(i).type.name for i in range(network.num_layers)
            ]

    return run


@pytest.fixture
def layers(rtx):
    """Return a function that builds an engine for three generations of GPUs.

    It returns the report of its layers.
    """
    target = build_target(("sm86", "sm89", "sm120"), library=rtx)
    return lambda model: from_log(
        compile_engine(
            model, BuildOrder("a test", ("x",), BuildOptions(), rtx, target, "test")
        ).messages
    )


def model_of(nodes, *, inputs, output, functions=(), stored=None):
    """A model of float tensors: `inputs` maps names to shapes."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (stored or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        values,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def function(name, formals, body):
    return helper.make_function(
        ops.DOMAIN, name, formals, ["out"], body, [helper.make_opsetid("", 20)]
    )


def sum_of_three(name):
    """A call of finedge::`name`, whose function adds its three inputs up."""
    body = [helper.make_node("Sum", ["f__a", "f__b", "f__c"], ["out"])]
    call = helper.make_node(name, ["x", "x", "x"], ["y"], domain=ops.DOMAIN, name="call")
    return model_of(
        [call],
        inputs={"x": ["b", 8]},
        output="y",
        functions=[function(name, ["f__a", "f__b", "f__c"], body)],
    )


@pytest.mark.parametrize(("name", "wrong"), [("Softmax", True), ("OursAlone", False)])
def test_an_op_named_like_an_onnx_op_is_built_as_that_op(parse, layers, name, wrong):
    _, kinds = parse(sum_of_three(name))
    assert ("SOFTMAX" in kinds, "ELEMENTWISE" in kinds) == (wrong, not wrong)
    assert bool(layers(sum_of_three(name)).of("softmax")) == wrong


@pytest.mark.parametrize("name", ops.OPS)
def test_the_parser_has_no_op_of_its_own_by_our_names(rtx, name):
    trt = rtx.trt
    builder = trt.Builder(logger(trt))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger(trt))
    assert parser.supports_operator("Softmax")
    assert not parser.supports_operator(ops.OPS[name].name)


@pytest.mark.parametrize("name", ops.OPS)
def test_every_op_is_refused_at_export_if_it_is_named_like_an_onnx_op(monkeypatch, name):
    monkeypatch.setitem(ops.OPS, name, replace(ops.OPS[name], name="Softmax"))
    empty = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)
    with pytest.raises(FinedgeError, match="'Softmax' is named like an ONNX op"):
        add_bodies(empty)


def joined(formals):
    """Call F(q, k), which concatenates its inputs: [2, 3] and [2, 5] give [2, 8].

    The names of the formals must not matter.
    """
    body = [helper.make_node("Concat", formals, ["out"], axis=1)]
    call = helper.make_node("F", ["q", "k"], ["y"], domain=ops.DOMAIN, name="call")
    return model_of(
        [call],
        inputs={"q": [2, 3], "k": [2, 5]},
        output="y",
        functions=[function("F", formals, body)],
    )


def test_a_formal_named_like_a_later_argument_receives_another_tensor(parse):
    swapped = joined(["k", "q"])
    assert parse(swapped)[0] == (2, 6), "q twice"
    assert parse(inliner.inline_local_functions(swapped))[0] == (2, 8)


@pytest.mark.parametrize("prefix", ["f__", "cla__"])
def test_a_private_prefix_keeps_formals_apart(parse, prefix):
    assert parse(joined([f"{prefix}k", f"{prefix}q"]))[0] == (2, 8)


@pytest.mark.parametrize("name", ops.OPS)
def test_the_inputs_of_every_function_of_ours_have_a_private_prefix(name):
    formals = [value.name for value in ONNX_OPS[name].body().inputs]
    prefixes = {formal.split("__")[0] for formal in formals}
    assert len(prefixes) == 1
    assert all("__" in formal for formal in formals)


def quantized_convolution(*, scale, axis):
    """A convolution [8, 4, 3, 3] between Q/DQ pairs.

    `scale` is that of its activation; its weight has a scale for each channel of `axis`.
    """
    rng = np.random.default_rng(0)
    channels = (8, 4)[axis]
    stored = {
        "scale": np.asarray(scale, np.float32),
        "zero": np.zeros(np.shape(scale), np.int8),
        "w": rng.integers(-127, 127, (8, 4, 3, 3)).astype(np.int8),
        "w scale": np.full(channels, 0.01, np.float32),
        "w zero": np.zeros(channels, np.int8),
    }
    nodes = [
        helper.make_node(
            "QuantizeLinear", ["x", "scale", "zero"], ["x int8"], name="quantize", axis=1
        ),
        helper.make_node(
            "DequantizeLinear", ["x int8", "scale", "zero"], ["x again"], name="dequantize", axis=1
        ),
        helper.make_node(
            "DequantizeLinear", ["w", "w scale", "w zero"], ["w again"], name="weight", axis=axis
        ),
        helper.make_node("Conv", ["x again", "w again"], ["y"], name="conv"),
    ]
    return model_of(nodes, inputs={"x": ["b", 4, 16, 16]}, output="y", stored=stored)


@pytest.mark.parametrize(
    ("scale", "axis", "stays_int8"),
    [(0.02, 0, True), ([0.02, 0.03, 0.04, 0.05], 0, False), (0.02, 1, False)],
    ids=["our form", "an activation scale a channel", "weight scales along axis 1"],
)
def test_the_layer_check_finds_a_quantized_convolution_that_runs_in_float(
    layers, scale, axis, stays_int8
):
    problems = check_layers(
        layers(quantized_convolution(scale=scale, axis=axis)),
        int8_layers=("conv",),
        precision="int8-fp32",
    )
    assert (problems == ()) is stays_int8, problems
    assert (
        stays_int8
        or "conv is INT8 in the calibration record, and the engine reads fp32" in problems[0]
    )
