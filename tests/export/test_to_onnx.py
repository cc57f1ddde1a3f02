from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from finedge.errors import FinedgeError, GateError
from finedge.export.ops import ONNX_OPS, check_name
from finedge.export.parity import check_parity, expected_of
from finedge.export.to_onnx import FramesToOutputs
from finedge.ops import OPS, Op
from finedge.train.models import names
from tests.small_models import small_export, small_model


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)


def exported(**choice):
    (model, spec), (content, taps) = small_model(**choice), small_export(**choice)
    proto = onnx.ModelProto.FromString(content)
    return proto, taps, FramesToOutputs(model, spec.preprocess).eval()


# On EfficientNet-Lite0: tests/flow/test_every_model.py
@pytest.mark.parametrize("name", names())
def test_every_model_exports_with_parity_and_passes_the_full_check(frames, name):
    proto, _, reference = exported(name=name, backbone="resnet18")
    onnx.checker.check_model(proto, full_check=True)
    for batch in (frames, frames[:1]):  # it is traced with two
        parity = check_parity(proto, expected_of(reference, batch), batch)
        assert parity.max_abs <= parity.limit


@pytest.mark.parametrize("name", ["cnl", "nl", "cs", "clca_cga", "attend_rectify"])
def test_uniform_attention_exports_without_a_node_of_ours(frames, name):
    proto, _, reference = exported(name=name, backbone="wrn_16_1", attention="uniform")
    assert not [n for n in proto.graph.node if n.domain]
    parity = check_parity(proto, expected_of(reference, frames), frames)
    assert parity.max_abs <= parity.limit


OPTIONS = [
    {"joint": True},
    {"pooled_keys": True},
    {"layout": "published"},
    {"name": "clca_cga", "learn_scale": True},
    {"name": "attend_rectify", "head": "half"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_export_too(frames, options):
    choice = {"name": "cnl", "backbone": "resnet18", **options}  # as in test_absorb.py
    proto, _, reference = exported(**choice)
    check_parity(proto, expected_of(reference, frames), frames)


def test_the_input_is_uint8_nhwc_with_a_free_batch_and_the_opset_is_20():
    proto, _, _ = exported()
    (frames,) = proto.graph.input
    shape = [d.dim_param or d.dim_value for d in frames.type.tensor_type.shape.dim]
    assert (frames.name, frames.type.tensor_type.elem_type, shape) == (
        "frames",
        onnx.TensorProto.UINT8,
        ["batch", 64, 64, 3],
    )
    assert [o.name for o in proto.graph.output] == ["logits"]
    assert {o.domain: o.version for o in proto.opset_import} == {"": 20, "finedge": 1}
    assert proto.ir_version <= 13


def test_each_response_is_one_node_with_function_and_plugin_attributes():
    proto, _, _ = exported()
    nodes = [n for n in proto.graph.node if n.domain == "finedge"]
    assert [n.op_type for n in nodes] == ["CrossLayerAttention"] * 2
    assert [(f.domain, f.name) for f in proto.functions] == [("finedge", "CrossLayerAttention")]
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {
            "scale": pytest.approx(64**-0.5),
            "plugin_namespace": b"finedge",
            "plugin_version": b"1",
        }


def test_theta_is_computed_once_and_the_responses_are_projected_together():
    proto, _, _ = exported()
    attention = [n for n in proto.graph.node if n.domain == "finedge"]
    assert len({n.input[0] for n in attention}) == 1, "theta is not shared"
    assert [list(n.input) for n in proto.graph.node if n.op_type == "Concat"] == [
        [n.output[0] for n in attention]
    ]
    assert [n.op_type for n in proto.graph.node].count(
        "BatchNormalization"
    ) == 1  # the pixels are normalised by one


def test_every_tap_is_a_tensor_of_the_graph_and_equals_the_module_output(frames):
    import onnxruntime

    proto, taps, reference = exported()
    for tap in taps:
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(tap.tensor, onnx.TensorProto.FLOAT, None)
        )
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(
        [t.tensor for t in taps], {"frames": frames}
    )
    with torch.no_grad():
        expected = reference(torch.from_numpy(frames))[1:]
    assert [t.name for t in taps] == list(reference.model.taps)
    for tap, f, e in zip(taps, found, expected, strict=True):
        assert np.abs(f - e.numpy()).max() <= 1e-4 * max(1, float(e.abs().max())), tap.name


def test_the_file_runs_in_onnx_runtime_without_finedge(tmp_path, frames):
    proto, _, _ = exported()
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", frames)
    code = """
import sys
for name in ("finedge", "torch"): sys.modules[name] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
for batch in (1, 3):
    (logits,) = session.run(None, {"frames": numpy.load("x.npy")[:batch]})
    print(logits.shape)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[:2] == ["(1, 5)", "(3, 5)"]


def test_nothing_of_this_machine_is_in_the_file():
    proto, _, _ = exported()
    assert b"/finedge/" not in proto.SerializeToString()
    assert b"site-packages" not in proto.SerializeToString()


def test_a_model_that_differs_is_refused_with_its_numbers(frames):
    proto, _, _ = exported()
    other, spec = small_model(name="plain")
    with pytest.raises(GateError, match="differs from PyTorch") as raised:
        check_parity(
            proto, expected_of(FramesToOutputs(other, spec.preprocess).eval(), frames), frames
        )
    assert raised.value.result["images"] == 3


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_an_onnx_face_and_a_name_of_its_own(name):
    check_name(OPS[name])
    function = ONNX_OPS[name].body()
    assert (function.domain, function.name) == (OPS[name].domain, OPS[name].name)
    assert [v.name for v in function.inputs] != list(OPS[name].inputs), (
        "formals need a private prefix: TensorRT binds them by name"
    )
    assert set(function.attributes) == set(OPS[name].attributes)


@pytest.mark.parametrize("name", ["Attention", "Softmax", "TRT_Thing"])
def test_an_op_named_like_a_standard_one_is_refused(name):
    with pytest.raises(FinedgeError, match=name):
        check_name(Op(name, 1, (), {}, np.array))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("query", "keys", "d", "dv"),
    [((3, 3), (6, 5), 8, 8), ((1, 1), (4, 4), 4, 6), ((7, 7), (2, 2), 16, 16)],
)
def test_the_onnx_body_and_the_torch_op_equal_the_numpy_reference(query, keys, d, dv, shared):
    import onnxruntime

    op, rng = OPS["CrossLayerAttention"], np.random.default_rng(1)
    q, k = (
        rng.normal(size=(2, d, *query)).astype(np.float32),
        rng.normal(size=(2, d, *keys)).astype(np.float32),
    )
    v = k if shared else rng.normal(size=(2, dv, *keys)).astype(np.float32)
    expected = op.reference(q, k, v, scale=0.3)
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["b", None, None, None])
        for n in "qkv"
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node(op.name, list("qkv"), ["y"], domain=op.domain, scale=0.3)
    body = ir.to_proto(ONNX_OPS[op.name].body())
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(op.domain, 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", inputs, [output]),
        functions=[body],
        opset_imports=opsets,
        ir_version=10,
    )
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"q": q, "k": k, "v": v}
    )
    assert found == pytest.approx(expected, abs=1e-5)
    torch_found = torch.ops.finedge.cross_layer_attention(*map(torch.from_numpy, (q, k, v)), 0.3)
    assert torch_found.numpy() == pytest.approx(expected, abs=1e-5)
