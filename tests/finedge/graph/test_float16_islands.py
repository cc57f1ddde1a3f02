"""float16 between the INT8 parts, inlined, and folded for a plugin.

The model is that of the bundle that ships with the project.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from finedge.bundle import FLOAT_FILE, GOLDEN, PORTABLE_FILE, Bundle
from finedge.graph.float16 import float_values
from finedge.graph.float16_islands import float16_islands
from finedge.graph.folding import fold
from finedge.graph.inlining import inline
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.ort.int8_products import open_exactly

BIRDS = Path(__file__).resolve().parents[3] / "examples" / "birds.finedge"
# Of max(1, largest logit): two INT8 steps of the last layer; measured 0 on the golden frame.
CLOSE = 0.02
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
    islands = float16_islands(FORMS[form](portable))
    onnx.checker.check_model(islands, full_check=True)
    assert np.abs(logits(islands, pixels) - expected).max() <= CLOSE * max(
        1, np.abs(expected).max()
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_product_or_softmax_is_left_in_float32_but_the_quantized_ones(portable, form):
    islands = float16_islands(FORMS[form](portable))
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
    islands = float16_islands(source)
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
    islands = float16_islands(folded(portable))
    made = {o: n for n in islands.graph.node for o in n.output}
    plugged = [n for n in islands.graph.node if n.op_type == "CrossLayerAttention"]
    assert len(plugged) == 2
    for node in plugged:
        assert {made[name].op_type for name in node.input} == {"Cast"}
        assert not float_values(islands) & set(node.input)


def test_a_float_file_becomes_float16_altogether():
    islands = float16_islands(onnx.load(Bundle.load(BIRDS).file(FLOAT_FILE)))
    assert sum(n.op_type == "Cast" for n in islands.graph.node) == 3, (
        "the frame, the first layer, the logits"
    )
