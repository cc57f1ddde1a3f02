"""Our operators inlined and tagged, and folded again.

The graph has attention and another function of ours.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from finedge.errors import BundleError
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.folding import fold
from finedge.graph.inlining import MAX_LEVELS, inline
from finedge.graph.keep_float32 import keep_float32
from finedge.graph.onnx_file import read_model
from finedge.graph.tags import READS, tags
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN
from tests.runtime.trt.build.conftest import OPSETS, SIZE, Heads, attention_model, quantized

FRAMES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
FORMS = {
    "fp32": lambda m: m,
    "fp16": lambda m: convert_float16(with_unique_names(m), keep=keep_float32(m.graph)),
    "int8": quantized,
}


def run(model: onnx.ModelProto) -> np.ndarray:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"frames": FRAMES})[0]


def calls(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type == CROSS_LAYER_ATTENTION.name]


@pytest.mark.parametrize("heads", [Heads(), Heads(64, 32), Heads(shared=True)])
@pytest.mark.parametrize("form", FORMS)
def test_a_call_inlines_to_standard_ops_and_folds_back_to_itself(form, heads):
    model = FORMS[form](attention_model(heads))
    inlined = inline(model)
    onnx.checker.check_model(inlined, full_check=True)
    assert not inlined.functions
    assert {n.domain for n in inlined.graph.node} == {""}
    assert [o.domain for o in inlined.opset_import] == [""]
    np.testing.assert_array_equal(run(inlined), run(model))
    assert calls(fold(inlined, CROSS_LAYER_ATTENTION)) == calls(model)


def test_constants_are_stored_in_the_type_of_what_they_work_with():
    inlined = inline(FORMS["fp16"](attention_model()))
    assert not {"Constant", "CastLike"} & {n.op_type for n in inlined.graph.node}
    (factor,) = [t for t in inlined.graph.initializer if t.name.endswith("factor")]
    assert factor.data_type == TensorProto.FLOAT16


def test_two_calls_of_one_name_stay_two():
    model = attention_model()
    again = model.graph.node.add()
    again.CopyFrom(calls(model)[0])
    again.output[0] = "again"
    inlined = inline(model)
    names = [n.name for n in inlined.graph.node]
    assert len(set(names)) == len(names)
    assert [list(c.output) for c in calls(fold(inlined, CROSS_LAYER_ATTENTION))] == [
        ["y"],
        ["again"],
    ]


def test_a_region_is_found_by_its_tags_whatever_its_tensors_are_called():
    inlined = inline(attention_model())
    for node in inlined.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"x/{n}" if n in ("q", "k", "y") else n for n in names]
    (call,) = calls(fold(inlined, CROSS_LAYER_ATTENTION))
    assert (list(call.input), list(call.output)) == (["x/q", "x/k", "v"], ["x/y"])


def lose_a_node(graph: onnx.GraphProto) -> None:
    graph.node.remove(next(n for n in graph.node if tags(n) and n.op_type == "Softmax"))


def show_the_weights(graph: onnx.GraphProto) -> None:
    inside = next(n for n in graph.node if tags(n) and n.op_type == "Softmax").output[0]
    graph.output.append(helper.make_tensor_value_info(inside, TensorProto.FLOAT, None))


def take_a_value_for_a_query(graph: onnx.GraphProto) -> None:
    next(
        p for n in graph.node for p in n.metadata_props if p.key == READS and p.value == "v,"
    ).value = "q,"


def damage_the_attributes(graph: onnx.GraphProto) -> None:
    for p in (p for n in graph.node for p in n.metadata_props if p.key.endswith("attributes")):
        p.value = "[1]"


@pytest.mark.parametrize(
    "damage", [lose_a_node, show_the_weights, take_a_value_for_a_query, damage_the_attributes]
)
def test_a_region_that_is_not_whole_is_no_call(damage):
    inlined = inline(attention_model())
    damage(inlined.graph)
    with pytest.raises(BundleError, match="not whole"):
        fold(inlined, CROSS_LAYER_ATTENTION)


def with_functions(*bodies: tuple[str, list[str]]) -> bytes:
    """A model whose functions call others: (name, the names it calls one after another)."""
    model = attention_model()
    for name, called in bodies:
        inner = [
            helper.make_node(c, [f"t{i}"], [f"t{i + 1}"], domain=DOMAIN)
            for i, c in enumerate(called)
        ]
        inner.append(helper.make_node("Identity", [f"t{len(called)}"], ["end"]))
        model.functions.append(helper.make_function(DOMAIN, name, ["t0"], ["end"], inner, OPSETS))
    next(n for n in model.graph.node if n.op_type == "Twice").op_type = bodies[0][0]
    return model.SerializeToString()


LEVELS = [(f"F{i}", [f"F{i + 1}"] * 16) for i in range(MAX_LEVELS - 2)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_functions(("F", ["F"])), "calls itself"),
        (with_functions(("F", ["G"]), ("G", ["F"])), "calls itself"),
        (with_functions(*LEVELS, (f"F{MAX_LEVELS - 2}", [])), "nodes"),
    ],
    ids=["itself", "each other", "17 million nodes"],
)
def test_endless_functions_are_refused_before_a_library_follows_them(tmp_path, content, reason):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=reason):
        read_model(tmp_path / "m.onnx")


def test_functions_in_functions_are_inlined(tmp_path):
    (tmp_path / "m.onnx").write_bytes(with_functions(("F", ["G", "Twice"]), ("G", ["Twice"])))
    np.testing.assert_allclose(
        run(read_model(tmp_path / "m.onnx")), 2 * run(attention_model()), rtol=1e-5
    )
