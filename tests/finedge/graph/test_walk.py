"""Walks over a graph, and the patterns that the quantizers look for."""

import onnx
import pytest

from finedge.graph.edit import unused_name, with_unique_names
from finedge.graph.patterns import (
    frames_to_planes,
    gated_tensors,
    is_layer,
    layers,
    mask_convolutions,
)
from finedge.graph.walk import (
    after_layers,
    before_layers,
    consumers,
    downstream,
    producers,
    upstream,
)

# Pixels are scaled and two layers run. A gate, a mask softmax and the sum of two results stand for
# the parts that models add.
TEXT = """
<ir_version: 10, opset_import: ["": 20]>
small (
    float[1,3,8,8] x, float[4,3,1,1] w, float[2,4,1,1] m, float[4,4,1,1] s, float[4,5] c
) => (float[1,5] y) {
    [scaled] pixels = Mul (x, x)
    [body] features = Conv (pixels, w)
    [score] scores = Conv (features, s)
    [squash] mask = Sigmoid (scores)
    [gate] gated = Mul (features, mask)
    [look] looks = Conv (gated, m)
    shape = Constant <value_ints = [0, 2, -1]> ()
    [flat] flat = Reshape (looks, shape)
    [soft] masks = Softmax (flat)
    [peak] top = ReduceMax <keepdims = 0> (masks)
    [pool] mean = GlobalAveragePool (gated)
    [vector] vector = Flatten (mean)
    [answer] first = Gemm (vector, c)
    [vote] y = Add (first, top)
}
"""


@pytest.fixture(scope="module")
def graph():
    return onnx.parser.parse_model(TEXT).graph


def test_nodes_before_and_after_the_layers(graph):
    assert [n.name for n in layers(graph)] == ["body", "score", "look", "answer"]
    assert before_layers(graph, is_layer=is_layer) - {""} == {"scaled"}
    after = after_layers(graph, is_layer=is_layer)
    assert after == {"flat", "soft", "peak", "vote", ""}


def test_a_mask_convolution_reaches_its_softmax_through_a_reshape(graph):
    assert mask_convolutions(graph) == {"look"}


def test_a_gate_multiplies_a_convolution_with_a_sigmoid(graph):
    assert gated_tensors(graph) == {"gated"}


def test_each_tensor_has_its_producer_and_its_consumers(graph):
    assert producers(graph)["mean"].name == "pool"
    assert "x" not in producers(graph)
    assert [n.name for n in consumers(graph)["gated"]] == ["look", "pool"]
    assert [n.name for n in consumers(graph)["x"]] == ["scaled", "scaled"]


def test_a_walk_stops_at_nodes_that_fail_its_test(graph):
    def is_light(node):
        return not is_layer(node)

    assert [n.name for n in downstream(graph, ["features"], through=is_light)] == [
        "gate",
        "pool",
        "vector",
    ]
    assert [n.name for n in upstream(graph, ["vector"], through=is_light)] == [
        "vector",
        "pool",
        "gate",
        "squash",
    ]


def test_names_become_unique_and_the_first_keeps_its_own():
    text = "<ir_version: 10, opset_import: ['': 20]> g (float x) => (float y) {"
    text += "[n] a = Abs (x) [n] b = Neg (a) [n2] c = Neg (b) y = Neg (c) }"
    model = onnx.parser.parse_model(text.replace("'", '"'))
    model.graph.node[2].name = "n#2"
    names = [node.name for node in with_unique_names(model).graph.node]
    assert names == ["n", "n#3", "n#2", "Neg#2"]
    assert unused_name("n", {"n#2", "n#3"}) == "n#4"


@pytest.mark.parametrize(
    ("axes", "expected"), [([0, 3, 1, 2], ["cast", "planes"]), ([0, 1, 3, 2], None)]
)
def test_the_head_is_a_cast_and_a_transpose_to_planes(axes, expected):
    text = f"""
    <ir_version: 10, opset_import: ["": 20]>
    g (uint8[1,4,4,3] frames) => (float[1,3,4,4] y) {{
        [cast] pixels = Cast <to = 1> (frames)
        [planes] planes = Transpose <perm = {axes}> (pixels)
        y = Relu (planes)
    }}"""
    head = frames_to_planes(onnx.parser.parse_model(text).graph)
    assert (head and [node.name for node in head]) == expected
