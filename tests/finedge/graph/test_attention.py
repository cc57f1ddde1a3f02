"""Our attention nodes are found in every form of a file, with their tensors and sizes."""

from __future__ import annotations

import onnx
import pytest

from finedge.errors import BundleError
from finedge.graph.attention import attention_nodes
from finedge.graph.inlining import inline
from tests.runtime.trt.build.conftest import Heads, attention_model


@pytest.mark.parametrize("form", [lambda m: m, inline], ids=["function", "inlined"])
@pytest.mark.parametrize("heads", [Heads(), Heads(64, 32), Heads(shared=True)])
def test_a_node_has_its_tensors_scale_and_sizes(form, heads):
    model = onnx.shape_inference.infer_shapes(form(attention_model(heads)))
    (node,) = attention_nodes(model)
    assert (node.query, node.key, node.scale) == ("q", "k", 0.125)
    assert (node.queries, node.keys, node.d, node.dv) == (16, 64, heads.d, heads.dv)
    assert node.shared is heads.shared


def test_sizes_that_the_graph_does_not_state_are_zero():
    (node,) = attention_nodes(attention_model())
    assert (node.queries, node.keys, node.d, node.dv) == (0, 0, 0, 0)


def test_a_node_without_a_scale_is_refused():
    model = attention_model()
    node = next(n for n in model.graph.node if n.name == "attend")
    del node.attribute[:]
    with pytest.raises(BundleError, match="'attend' has 3 inputs and the scale None"):
        attention_nodes(model)
