"""Absorbing key and value projections is exact in float64, and done where it is cheaper.

Taps and views do not see it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from finedge.bundle import FLOAT_FILE, HALF_FILE, PROJECTED_FILE, Bundle
from finedge.export.cost import (
    PRECISIONS,
    AttentionCost,
    Form,
    ModelCost,
    attention_costs,
    count,
    count_cost,
)
from finedge.export.onnx_files import onnx_files
from finedge.export.ops import ONNX_OPS
from finedge.export.passes import absorb
from finedge.export.to_onnx import to_onnx
from finedge.runtime.explain.explainer import Explainer
from finedge.runtime.explain.views import ExplainOptions
from finedge.spec import Input, Preprocess, Spec
from finedge.train.cost import cost
from finedge.train.models import build_model, names
from tests.small_models import small_export

EXACT = 1e-12  # relative to max(1, max |value|): float64 sums in another order
FLOAT = 1e-4  # the same in float32
RNG = np.random.default_rng(0)
SIDE = 96
CNL_OPTIONS = [
    {"joint": True},
    {"pooled_keys": True},
    {"query": "layer3.1", "responses": ("layer2.1",)},
]
# CNL on ResNet-50 at 224, counted by hand from the paper: the maps [positions, channels] of its
# five responses, and the cost of the module.
RESNET50 = [(784, 512)] * 2 + [(196, 1024)] * 3


def attention_with_projections(*, queries, keys, bias, same_source=True):
    """Abs(attention(q, W_k x, W_v x)), 4 channels asked in, 6 in the map, 5 in the values."""
    inputs = {"q": ["b", 4, *queries], "x": ["b", 6, *keys], "x2": ["b", 6, *keys]}
    constants = {
        "wk": RNG.normal(size=(4, 6, 1, 1)),
        "wv": RNG.normal(size=(5, 6, 1, 1)),
        "bk": RNG.normal(size=4),
        "bv": RNG.normal(size=5),
    }
    nodes = [
        helper.make_node(
            "Conv", ["x", "wk", *(["bk"] if bias else [])], ["k"], kernel_shape=[1, 1]
        ),
        helper.make_node(
            "Conv",
            ["x" if same_source else "x2", "wv", *(["bv"] if bias else [])],
            ["v"],
            kernel_shape=[1, 1],
        ),
        helper.make_node(
            "CrossLayerAttention",
            ["q", "k", "v"],
            ["y"],
            domain="finedge",
            scale=0.5,
            name="attend",
        ),
        helper.make_node("Abs", ["y"], ["out"]),
    ]
    return synthetic(nodes, inputs, "out", constants)


def synthetic(nodes, inputs, output, constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["b", 5, *inputs["q"][2:]])],
        [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    bodies = [ir.to_proto(ONNX_OPS["CrossLayerAttention"].body())]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("finedge", 1)]
    made = helper.make_model(graph, functions=bodies, opset_imports=opsets, ir_version=10)
    for node in ("k", "v", "y"):  # shape inference does not enter functions
        sizes = {"k": [4, *inputs["x"][2:]], "v": [5, *inputs["x"][2:]], "y": [5, *inputs["q"][2:]]}
        made.graph.value_info.append(
            helper.make_tensor_value_info(node, TensorProto.DOUBLE, ["b", *sizes[node]])
        )
    return ir.from_proto(made)


def all_absorbed(model, keep=frozenset()):
    return absorb(model, {n.node for n in attention_costs(model)}, keep=keep)


def outputs(model, inputs):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return ReferenceEvaluator(proto).run(None, inputs)


def ops(model):
    return [(n.op_type, n.name, [v.name for v in n.inputs if v is not None]) for n in model.graph]


def in_float64(model):
    """The same graph with float64 wherever there was float32."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(
                    onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name
                )
            )
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return ReferenceEvaluator(proto)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys"), [((2, 2), (9, 8)), ((9, 8), (2, 2)), ((1, 1), (1, 1))]
)
def test_absorbing_is_exact_and_the_map_becomes_key_and_value(queries, keys, bias):
    before = attention_with_projections(queries=queries, keys=keys, bias=bias)
    after = all_absorbed(before)
    inputs = {
        "q": RNG.normal(size=(2, 4, *queries)),
        "x": RNG.normal(size=(2, 6, *keys)),
        "x2": np.zeros((2, 6, *keys)),
    }
    assert np.abs(outputs(before, inputs)[0] - outputs(after, inputs)[0]).max() < EXACT
    (attention,) = [n for n in after.graph if n.domain == "finedge"]
    assert [v.name for v in attention.inputs[1:]] == ["x", "x"]


def test_what_is_not_named_stays():
    before = attention_with_projections(queries=(2, 2), keys=(9, 8), bias=False)
    assert ops(absorb(before, frozenset())) == ops(before)


def test_projections_of_two_different_maps_stay():
    before = attention_with_projections(queries=(2, 2), keys=(9, 8), bias=False, same_source=False)
    assert attention_costs(before)[0].absorbed is None
    assert ops(all_absorbed(before)) == ops(before)


def test_keys_that_are_kept_as_a_tap_stay():
    before = attention_with_projections(queries=(2, 2), keys=(9, 8), bias=False)
    assert ops(all_absorbed(before, keep={"k"})) == ops(before)


def test_an_attention_that_is_an_output_keeps_its_name():
    before = attention_with_projections(queries=(2, 2), keys=(9, 8), bias=True)
    before.graph.outputs.append(next(n for n in before.graph if n.domain == "finedge").outputs[0])
    after = all_absorbed(before)
    assert [v.name for v in after.graph.outputs] == ["out", "y"]
    inputs = {
        "q": RNG.normal(size=(1, 4, 2, 2)),
        "x": RNG.normal(size=(1, 6, 9, 8)),
        "x2": np.zeros((1, 6, 9, 8)),
    }
    for found, expected in zip(outputs(after, inputs), outputs(before, inputs), strict=True):
        assert np.abs(found - expected).max() < EXACT


def test_the_model_given_is_left_as_it_was():
    before = attention_with_projections(queries=(2, 2), keys=(9, 8), bias=True)
    was = ir.to_proto(before).SerializeToString(deterministic=True)
    all_absorbed(before)
    assert ir.to_proto(before).SerializeToString(deterministic=True) == was


@pytest.mark.parametrize(
    ("name", "options"), [*((n, {}) for n in names()), *(("cnl", o) for o in CNL_OPTIONS)]
)
def test_every_model_is_the_same_function_in_float64_or_untouched(name, options):
    """Only cnl and nl project both keys and values of one map.

    cs shares them, clca_cga has none, and a joint softmax runs over several maps.
    """
    content, taps = small_export(name=name, backbone="resnet18", **options)
    before = ir.from_proto(onnx.ModelProto.FromString(content))
    after = all_absorbed(before, {t.tensor for t in taps})
    changed = ops(after) != ops(before)
    assert changed == (name in ("cnl", "nl") and not options.get("joint"))
    if changed:
        frames = {"frames": RNG.integers(0, 255, (1, 64, 64, 3), np.uint8)}
        (found,), (expected,) = (in_float64(m).run(None, frames) for m in (after, before))
        assert np.abs(found - expected).max() < EXACT * max(1, np.abs(expected).max())
        assert found.dtype == np.float64


# --- the cost -------------------------------------------------------------------------------------


def node(**sizes):
    return AttentionCost("n", *count(**sizes))


def test_the_counts_are_those_of_the_formulas():
    projected, absorbed = count(queries=2, keys=3, channels=5, width=7, value_width=11)
    assert projected == Form(3 * 5 * 7 + 3 * 5 * 11, 2 * 3 * 7 + 2 * 3 * 11)
    assert absorbed == Form(2 * 5 * 7 + 2 * 5 * 11, 2 * 3 * 5 + 2 * 3 * 5)


def test_floating_point_counts_all_alike_and_int8_spares_attention():
    deep = node(queries=100, keys=196, channels=1024, width=256, value_width=256)
    assert [deep.absorbs(p) for p in PRECISIONS] == [True, True, False]
    narrow = node(queries=49, keys=784, channels=40, width=64, value_width=64)  # less of both kinds
    assert [narrow.absorbs(p) for p in PRECISIONS] == [True, True, True]
    within = node(queries=196, keys=196, channels=1024, width=512, value_width=512)  # nl
    assert [within.absorbs(p) for p in PRECISIONS] == [False, False, False]


def test_cnl_on_resnet50_at_224_adds_at_most_a_tenth():
    gmac = {name: cost(name, backbone="resnet50")["gmac"]["224"] for name in ("cnl", "plain")}
    nodes = tuple(
        node(queries=49, keys=keys, channels=channels, width=256, value_width=256)
        for keys, channels in RESNET50
    )
    found = ModelCost(nodes, *(round(gmac[name] * 1e9) for name in ("cnl", "plain")))
    assert found.projected - found.macs("fp32") == pytest.approx((928 - 395) * 1e6, abs=1e6)
    assert found.macs("fp32") / found.plain <= 1.10
    assert found.macs("int8") == found.macs("fp32"), "INT8 absorbs too: its products are INT8"


@pytest.mark.slow
def test_the_graph_of_cnl_on_resnet50_at_224_adds_at_most_a_tenth():
    model = build_model("cnl", num_classes=200, backbone="resnet50").eval()
    spec = Spec(
        "cnl", "resnet50", tuple(map(str, range(200))), Preprocess(256, 224), Input(224, 224)
    )
    graph, taps = to_onnx(model, spec)
    found = count_cost(model, spec, graph)
    assert [(n.projected, n.absorbed) for n in found.nodes] == [
        count(queries=49, keys=k, channels=c, width=256, value_width=256) for k, c in RESNET50
    ]
    assert found.macs("fp32") / found.plain <= 1.10
    files = onnx_files(graph, found, taps)
    shared = {
        name: [n.input[1] == n.input[2] for n in m.graph.node if n.domain == "finedge"]
        for name, m in files.items()
    }
    assert shared == {FLOAT_FILE: [True] * 5, HALF_FILE: [True] * 5}


# --- the files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported():
    """CNL off its start, where FP32 absorbs more than INT8: (model, spec, graph, taps)."""
    torch.manual_seed(0)
    model = build_model(
        "cnl",
        num_classes=5,
        backbone="resnet18",
        query="layer3.0",
        responses=["layer2.0", "layer2.1"],
    ).eval()
    with torch.no_grad():
        for norm in model.cross_layer.bn:
            norm.weight.fill_(0.5)
    spec = Spec(
        "cnl", "resnet18", tuple("abcde"), Preprocess(SIDE, SIDE), Input(SIDE, SIDE), model.outputs
    )
    return model, spec, *to_onnx(model, spec)


def test_int8_gets_a_file_of_its_own_only_where_its_form_differs(exported):
    model, spec, graph, taps = exported
    found = count_cost(model, spec, graph)
    assert found.absorbed("int8") < found.absorbed("fp32") == {n.node for n in found.nodes}
    assert list(onnx_files(graph, found, taps)) == [FLOAT_FILE, PROJECTED_FILE, HALF_FILE]
    nothing = ModelCost((), found.projected, found.plain)
    assert list(onnx_files(graph, nothing, taps)) == [FLOAT_FILE, HALF_FILE]


def test_every_file_answers_alike_and_has_every_tap(exported):
    model, spec, graph, taps = exported
    frames = RNG.integers(0, 255, (2, SIDE, SIDE, 3), np.uint8)
    files = onnx_files(graph, count_cost(model, spec, graph), taps)
    seen = {name: with_taps(files[name], taps, frames) for name in (FLOAT_FILE, PROJECTED_FILE)}
    for found, expected in zip(*seen.values(), strict=True):
        assert np.abs(found - expected).max() < FLOAT * max(1, np.abs(expected).max())
    assert any(t.name.startswith("cross_layer.attend") for t in taps)


def with_taps(proto, taps, frames):
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.extend(
        helper.make_tensor_value_info(t.tensor, TensorProto.FLOAT, None) for t in taps
    )
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"frames": frames})


def test_explain_shows_the_same_attention_in_both_forms(exported, tmp_path):
    model, spec, graph, taps = exported
    frame = RNG.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    panels = {}
    for form in (graph, all_absorbed(graph, {t.tensor for t in taps})):
        files = {FLOAT_FILE: ir.to_proto(form).SerializeToString()}
        bundle = Bundle.create(
            tmp_path / "b.finedge", spec, files=files, taps=taps, views=model.views, provenance={}
        )
        panels[len(panels)] = Explainer(bundle)(frame, ExplainOptions(at=(0.2, 0.8))).panels
    assert sum(p.view.kind == "attention" for p in panels[0]) == 2
    for before, after in zip(panels[0], panels[1], strict=True):
        assert (after.view, after.mark, after.maps[0].grid) == (
            before.view,
            before.mark,
            before.maps[0].grid,
        )
        assert after.maps[0].values == pytest.approx(
            before.maps[0].values, abs=1e-5 * max(1, np.abs(before.maps[0].values).max())
        )
