import onnx
import pytest

from finedge.graph.walk import before_first_layer, behind_last_layer, gates, into_softmax, layers

# Pixels are scaled, two layers run; a gate, a mask softmax and the sum of two answers stand for what models add.
TEXT = """
<ir_version: 10, opset_import: ["": 20]>
small (float[1,3,8,8] x, float[4,3,1,1] w, float[2,4,1,1] m, float[4,4,1,1] s, float[4,5] c) => (float[1,5] y) {
    [scaled] pixels = Mul (x, x)
    [body] features = Conv (pixels, w)
    [score] scores = Conv (features, s)
    [squash] mask = Sigmoid (scores)
    [gate] gated = Mul (features, mask)
    [look] looks = Conv (gated, m)
    shape = Constant <value_ints = [0, 2, -1]> ()
    [flat] flat = Reshape (looks, shape)
    [soft] shares = Softmax (flat)
    [peak] top = ReduceMax <keepdims = 0> (shares)
    [pool] mean = GlobalAveragePool (gated)
    [vector] vector = Flatten (mean)
    [answer] first = Gemm (vector, c)
    [vote] y = Add (first, top)
}
"""


@pytest.fixture(scope="module")
def graph():
    return onnx.parser.parse_model(TEXT).graph


def test_nodes_are_found_by_where_they_lie(graph):
    assert [n.name for n in layers(graph)] == ["body", "score", "look", "answer"]
    assert before_first_layer(graph) - {""} == {"scaled"}
    assert behind_last_layer(graph) == {"flat", "soft", "peak", "vote", ""}


def test_a_convolution_that_makes_masks_is_known_through_a_reshape(graph):
    assert into_softmax(graph) == {"look"}


def test_a_gate_is_a_product_with_a_sigmoid_of_a_convolution(graph):
    assert gates(graph) == {"gate"}
