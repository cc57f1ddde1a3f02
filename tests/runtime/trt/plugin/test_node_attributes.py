"""What the plugin has to know is written into its node; nothing else of the model changes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.trt.plugin.node_attributes import with_node_attributes


def model(*, names=("q half", "k half", "v half"), zero=0, scale=0.5, cast=True):
    """q, k, v -> QuantizeLinear -> DequantizeLinear -> Cast -> attention, which reads `names`."""
    nodes, stored = (
        [],
        {
            "scale": np.float32(scale),
            "scales": np.full(8, scale, np.float32),
            "zero": np.int8(zero),
        },
    )
    for name in "qkv":
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name} int8"]))
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name} int8", "scale", "zero"], [f"{name} float"]
            )
        )
        nodes.append(
            helper.make_node("Cast", [f"{name} float"], [f"{name} half"], to=TensorProto.FLOAT16)
        )
    nodes.append(
        helper.make_node(
            OP.name,
            names,
            ["y"],
            domain=OP.domain,
            scale=0.25,
            plugin_namespace=OP.domain,
            plugin_version="1",
        )
    )
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 2, 2]) for n in "qkv"]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in stored.items()]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(OP.domain, 1)]
    )


def attention(given):
    node = next(n for n in with_node_attributes(given).graph.node if n.op_type == OP.name)
    return list(node.input), {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def test_dequantized_maps_are_taken_as_they_are_stored():
    inputs, attributes = attention(model())
    assert inputs == ["q int8", "k int8", "v int8"]
    expected = {
        "scale": 0.25,
        "q_scale": 0.5,
        "k_scale": 0.5,
        "v_scale": 0.5,
        "shared": 0,
        "plugin_namespace": b"finedge",
        "plugin_version": b"1",
    }
    assert attributes == expected


def test_a_map_without_a_cast_is_seen_too():
    assert attention(model(names=("q float", "k half", "v half")))[0] == [
        "q int8",
        "k int8",
        "v int8",
    ]


def test_float_maps_stay_and_their_scale_is_0():
    inputs, attributes = attention(model(names=("q", "k half", "v")))
    assert inputs == ["q", "k int8", "v"]
    assert [attributes[f"{n}_scale"] for n in "qkv"] == [0, 0.5, 0]


@pytest.mark.parametrize(
    ("names", "shared"),
    [(("q", "k", "k"), 1), (("q", "k half", "k half"), 1), (("q", "k", "v"), 0)],
)
def test_one_map_as_keys_and_values_is_said(names, shared):
    assert attention(model(names=names))[1]["shared"] == shared


def test_a_zero_point_other_than_0_stays_in_front():
    assert attention(model(zero=3))[0] == ["q half", "k half", "v half"]


def test_a_scale_a_channel_stays_in_front():
    given = model()
    next(n for n in given.graph.node if n.op_type == "DequantizeLinear").input[1] = "scales"
    assert attention(given)[0] == ["q half", "k int8", "v int8"]


def test_the_model_stays_as_it_is_and_a_second_call_changes_nothing():
    given = model()
    before = given.SerializeToString()
    once = with_node_attributes(given)
    assert given.SerializeToString() == before
    assert with_node_attributes(once).SerializeToString() == once.SerializeToString()
