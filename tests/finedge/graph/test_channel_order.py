"""Channels in another order: the same answers, and neighbours that fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.graph.channel_order import best_order, order_channels, pair_costs
from finedge.graph.edit import copied
from finedge.graph.pair_sums import PAIR_LIMIT, pair_sums
from finedge.graph.reduce_range import reduce_range
from finedge.runtime.ort.int8_products import open_exactly

SIDE = 6
# name -> shape of the weights, groups, and what it reads
LAYERS = {
    "stem": ((8, 4, 3, 3), 1, "x"),
    "expand": ((16, 8, 1, 1), 1, "stem"),
    "depthwise": ((16, 1, 3, 3), 16, "expand"),
    "project": ((8, 16, 1, 1), 1, "depthwise"),
    "grouped": ((8, 4, 1, 1), 2, "sum"),
    "head": ((12, 8, 1, 1), 1, "sum"),
}


def int8_network() -> onnx.ModelProto:
    """An inverted bottleneck with a residual, a grouped convolution beside it, and a classifier.

    x -> stem -> expand -> depthwise -> project, + stem = sum; sum -> grouped -> out of the graph;
    sum -> head -> average -> classify.
    """
    rng = np.random.default_rng(0)
    stored, nodes = {"s": np.float32(0.1), "z": np.uint8(128)}, []

    def quantized(name):
        nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}/q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/q", "s", "z"], [f"{name}/f"]))

    def weights(name, shape):
        values = np.clip(np.rint(rng.normal(0, 60, shape)), -127, 127)
        scale = rng.uniform(1e-3, 2e-3, shape[0]).astype(np.float32)
        stored[f"{name}/w"], stored[f"{name}/ws"] = values.astype(np.int8), scale
        stored[f"{name}/b"] = rng.integers(-500, 500, shape[0]).astype(np.int32)
        stored[f"{name}/bs"] = (scale * np.float32(0.1)).astype(np.float32)
        stored[f"{name}/wz"] = np.zeros(shape[0], np.int8)
        inputs = [f"{name}/w", f"{name}/ws", f"{name}/wz"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/wf"], axis=0))
        inputs = [f"{name}/b", f"{name}/bs"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/bf"], axis=0))
        return [f"{name}/wf", f"{name}/bf"]

    quantized("x")
    for name, (shape, groups, source) in LAYERS.items():
        if name == "grouped":
            nodes.append(helper.make_node("Add", ["stem/f", "project/f"], ["sum"]))
            quantized("sum")
        pads = [shape[2] // 2] * 4
        inputs = [f"{source}/f", *weights(name, shape)]
        nodes.append(helper.make_node("Conv", inputs, [name], name, group=groups, pads=pads))
        quantized(name)
    nodes.append(helper.make_node("GlobalAveragePool", ["head/f"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    inputs = ["flat", *weights("classify", (5, 12))]
    nodes.append(helper.make_node("Gemm", inputs, ["y"], "classify", transB=1))
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5]),
        helper.make_tensor_value_info("grouped/f", TensorProto.FLOAT, ["n", 8, SIDE, SIDE]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()]
    graph = helper.make_graph(nodes, "network", [source], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    model = int8_network()
    onnx.checker.check_model(model, full_check=True)
    return model


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(3).normal(0, 6, (2, 4, SIDE, SIDE)).astype(np.float32)
    return open_exactly(model).run(None, {"x": x})


@pytest.mark.int8
def test_another_order_of_channels_changes_no_answer(network):
    ordered = copied(network)
    order_channels(ordered)
    for before, after in zip(answers(network), answers(ordered), strict=True):
        assert np.ptp(before) > 0
        np.testing.assert_allclose(after, before, atol=1e-5)
    before, after = stored(network), stored(ordered)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {"expand/w", "expand/ws", "expand/b", "depthwise/w", "project/w"} <= changed


def test_channels_that_an_output_or_another_op_reads_keep_their_order(network):
    ordered = copied(network)
    order_channels(ordered)
    before, after = stored(network), stored(ordered)
    # The residual sum is read by a grouped convolution: what makes it keeps its rows.
    for name in ("stem/w", "stem/b", "grouped/w", "classify/b"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(after["project/b"], before["project/b"])
    np.testing.assert_array_equal(
        np.sort(after["project/w"], axis=1), np.sort(before["project/w"], axis=1)
    )


def test_weights_that_another_node_reads_are_not_moved(network):
    shared = copied(network)
    shared.graph.node.add(op_type="Identity", input=["expand/wf"], output=["copy"])
    shared.graph.output.append(helper.make_tensor_value_info("copy", TensorProto.FLOAT, None))
    ordered = copied(shared)
    order_channels(ordered)
    np.testing.assert_array_equal(stored(ordered)["expand/w"], stored(network)["expand/w"])
    np.testing.assert_array_equal(stored(ordered)["depthwise/w"], stored(network)["depthwise/w"])


@pytest.mark.parametrize("channels", [2, 3, 10, 64])
def test_an_order_has_every_channel_once_and_costs_no_more(channels):
    columns = np.random.default_rng(channels).normal(0, 50, (channels, 30)).astype(np.int8)
    order = best_order(columns)
    assert sorted(order) == list(range(channels))

    def cost(taken):
        pairs = taken[: channels // 2 * 2].reshape(-1, 2)
        return pair_costs(columns)[pairs[:, 0], pairs[:, 1]].sum()

    assert cost(order) <= cost(np.arange(channels)) * 1.001


def test_large_weights_get_small_or_opposite_neighbours():
    columns = np.array([[127, 10], [127, -10], [-100, 5], [1, 100]], np.int8)
    assert pair_sums(columns[best_order(columns)].T).max() <= PAIR_LIMIT
    assert pair_sums(columns.T).max() > PAIR_LIMIT


def test_fewer_channels_are_scaled_in_another_order(network):
    assert reduce_range(network).mean_scale > reduce_range(network, reorder=False).mean_scale
