"""float16 between the INT8 parts: on the bundle that ships with the project, inlined, and folded for a plugin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from finedge.bundle import FLOAT_FILE, GOLDEN, PORTABLE_FILE, Bundle
from finedge.graph.float16 import float_values
from finedge.graph.float16_islands import fp16_islands
from finedge.graph.folding import fold
from finedge.graph.inlining import inline
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.ort.int8_products import open_exactly
from finedge.runtime.trt.build.layers import from_log
from finedge.runtime.trt.build.log import collected, logger

BIRDS = Path(__file__).resolve().parents[3] / "examples" / "birds.finedge"
CLOSE = 0.02  # of max(1, largest logit): two INT8 steps of the last layer; measured 0 on the golden frame
FORMS = {"inlined": inline}


@pytest.fixture(scope="module")
def portable():
    return onnx.load(Bundle.load(BIRDS).file(PORTABLE_FILE))


@pytest.fixture(scope="module")
def pixels():
    return np.load(BIRDS / GOLDEN)["input"][None]


def logits(model, pixels):
    return open_exactly(model).run(None, {"frames": pixels})[0]


def folded(model):
    return fold(inline(model), CROSS_LAYER_ATTENTION)


def made_in(model):
    """Tensor name -> element type."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {
        v.name: v.type.tensor_type.elem_type
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    return found | {t.name: t.data_type for t in graph.initializer}


@pytest.mark.int8
@pytest.mark.parametrize("form", FORMS)
def test_it_answers_as_the_int8_file_does(portable, pixels, form):
    expected = logits(portable, pixels)
    islands = fp16_islands(FORMS[form](portable))
    onnx.checker.check_model(islands, full_check=True)
    assert np.abs(logits(islands, pixels) - expected).max() <= CLOSE * max(
        1, np.abs(expected).max()
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_product_or_softmax_is_left_in_float32_but_the_quantized_ones(portable, form):
    islands = fp16_islands(FORMS[form](portable))
    kind, maker = made_in(islands), {o: n.op_type for n in islands.graph.node for o in n.output}
    for node in islands.graph.node:
        if (
            node.op_type in ("Conv", "Gemm", "MatMul", "Softmax")
            and maker.get(node.input[0]) != "DequantizeLinear"
        ):
            assert kind[node.output[0]] == TensorProto.FLOAT16, node.name
        if node.op_type == "CrossLayerAttention":
            assert {kind[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    if form == "inlined":
        assert Counter(n.op_type for n in islands.graph.node)["Softmax"] == 2


@pytest.mark.parametrize("form", [*FORMS, "folded"])
def test_quantization_stays_as_it_was_and_casts_are_few(portable, form):
    source = {**FORMS, "folded": folded}[form](portable)
    islands = fp16_islands(source)
    before, after = (
        {n.name: n for n in m.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
        for m in (source, islands)
    )
    constants = {t.name: t for t in islands.graph.initializer}
    assert before.keys() == after.keys()
    for node in after.values():
        assert constants[node.input[1]].data_type == TensorProto.FLOAT, (
            "a float16 scale turns subnormal"
        )
        assert list(node.input[1:]) == list(before[node.name].input[1:])
    casts = [n for n in islands.graph.node if n.op_type == "Cast"]
    assert len(casts) == 1 + 5 + 1, (
        "the frame; theta, two phi and two g into attention; what both return"
    )
    makers = {o: n for n in islands.graph.node for o in n.output}
    assert not [
        n
        for n in casts
        if makers.get(n.input[0]) is not None and makers[n.input[0]].op_type == "Cast"
    ]


def test_a_plugin_node_takes_and_makes_float16(portable):
    islands = fp16_islands(folded(portable))
    made = {o: n for n in islands.graph.node for o in n.output}
    plugged = [n for n in islands.graph.node if n.op_type == "CrossLayerAttention"]
    assert len(plugged) == 2
    for node in plugged:
        assert {made[name].op_type for name in node.input} == {"Cast"}
        assert not float_values(islands) & set(node.input)


def build(rtx, model):
    """Build an engine for SM86 and return its layers."""
    trt = rtx.trt
    with collected(trt) as messages:
        builder = trt.Builder(logger(trt))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger(trt))
        assert parser.parse(model.SerializeToString()), [
            parser.get_error(i).desc() for i in range(parser.num_errors)
        ]
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        shape = network.get_input(0).shape[1:]
        profile.set_shape("frames", (1, *shape), (1, *shape), (4, *shape))
        config.add_optimization_profile(profile)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        assert builder.build_serialized_network(network, config) is not None, messages.errors
        return from_log(messages)


def test_the_engine_fuses_attention_and_computes_no_product_in_float32(rtx, portable):
    plain, islands = (
        build(rtx, m).summary() for m in (inline(portable), fp16_islands(inline(portable)))
    )
    assert plain["fused_attention"] == 0
    assert plain["precisions"]["matmul"]["fp32"] == 4, "what the islands are for"
    assert islands["precisions"]["attention"] == {"fp16": 2}
    assert islands["precisions"]["matmul"] == {"int8": 1}
    assert islands["unfused_softmax"] == 0
    assert (
        islands["int8_convolutions"]
        == plain["int8_convolutions"]
        == sum(n.op_type == "Conv" for n in portable.graph.node)
    )


def test_a_float_file_becomes_float16_altogether():
    islands = fp16_islands(onnx.load(Bundle.load(BIRDS).file(FLOAT_FILE)))
    assert sum(n.op_type == "Cast" for n in islands.graph.node) == 3, (
        "the frame, the first layer, the logits"
    )
