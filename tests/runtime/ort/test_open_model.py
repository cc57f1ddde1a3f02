"""Which model files an ONNX Runtime session opens, and which it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import BundleError
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.ort.backend import REDUCED_RANGE, OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from tests.runtime.trt.build.conftest import SIZE, SPEC, attention_model


def elsewhere(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def test_a_session_does_not_open_a_model_with_outside_data(tiny_bundle, monkeypatch):
    model = onnx.load(tiny_bundle.file(FLOAT_FILE))
    weight = model.graph.initializer[0]
    content = weight.raw_data
    elsewhere(weight)
    bundle = tiny_bundle.extend("test", {FLOAT_FILE: model.SerializeToString()}, {})
    # Next to the file, and where ONNX Runtime looks when it gets bytes.
    for folder in (bundle.path, bundle.path.parent):
        (folder / "weights.bin").write_bytes(content)
    monkeypatch.chdir(bundle.path.parent)
    for open_model in (
        lambda b: OnnxRuntimeBackend().open(b, variant="fp32"),
        OnnxRuntimeBackend().open_with_taps,
    ):
        with pytest.raises(BundleError, match="no digest covers"):
            open_model(bundle)


def model_of(*nodes, inputs=None, kind=TensorProto.FLOAT, shape=None, constants=()):
    frames = inputs or [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 32, 32, 3])
    ]
    logits = helper.make_tensor_value_info("logits", kind, shape)
    graph = helper.make_graph(list(nodes), "g", frames, [logits], list(constants))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def filled(*sizes):
    return model_of(
        helper.make_node("ConstantOfShape", ["s"], ["logits"]),
        constants=[numpy_helper.from_array(np.array(sizes, np.int64), "s")],
    )


CAST = helper.make_node("Cast", ["frames"], ["f"], to=1)
TWO = [
    helper.make_tensor_value_info(n, TensorProto.UINT8, ["B", 32, 32, 3])
    for n in ("frames", "others")
]
RENAMED = [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["B", 32, 32, 3])]
SMALLER = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 16, 16, 3])]
FLAT = helper.make_node("ReduceMean", ["f"], ["logits"], keepdims=0)
ODD = {
    "a scalar": model_of(CAST, FLAT),
    "rank 4": model_of(helper.make_node("Cast", ["frames"], ["logits"], to=1)),
    "five rows": filled(5, 6),
    "no rows": filled(0, 6),
    "other classes": filled(1, 7),
    "no classes": filled(1, 0),
    "40 GB": filled(10**10),
    "40 GB inside": model_of(
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceMean", ["big"], ["logits"], keepdims=0),
        constants=[numpy_helper.from_array(np.array([10**5, 10**5], np.int64), "s")],
    ),
    "two inputs": model_of(CAST, FLAT, inputs=TWO),
    "another name": model_of(
        helper.make_node("Cast", ["pictures"], ["f"], to=1), FLAT, inputs=RENAMED
    ),
    "another size": model_of(CAST, FLAT, inputs=SMALLER),
    "strings": model_of(
        helper.make_node(
            "Constant",
            [],
            ["logits"],
            value=helper.make_tensor("v", TensorProto.STRING, [1, 6], [b"a"] * 6),
        ),
        kind=TensorProto.STRING,
        shape=[1, 6],
    ),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_model_of_another_shape_is_a_bundle_error(tiny_bundle, content):
    bundle = tiny_bundle.extend("test", {FLOAT_FILE: content}, {})
    with pytest.raises(BundleError):
        OnnxRuntimeBackend().open(bundle, variant="fp32")(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.int8
def test_a_session_of_scaled_weights_answers_as_the_file(tiny_bundle, frames, monkeypatch):
    monkeypatch.setenv(OVERRIDE, "saturating")
    answers = {}
    for is_reduced in (False, True):
        backend = OnnxRuntimeBackend(SessionOptions(exact=not is_reduced))
        session = backend.open(tiny_bundle, variant="int8")
        assert (session.info.precision == REDUCED_RANGE) is is_reduced
        batch = Classifier(tiny_bundle, session, "int8").prepare(frames)
        answers[is_reduced] = session(batch)["logits"]
    exact, reduced = answers[False], answers[True]
    assert not np.array_equal(reduced, exact)
    assert (reduced.argmax(axis=1) == exact.argmax(axis=1)).all()
    norms = np.linalg.norm(reduced) * np.linalg.norm(exact)
    assert (reduced * exact).sum() / norms > 0.999


def test_a_bundle_with_functions_opens_as_it_is(tmp_path):
    """Version 0.1 wrote functions; later versions inline them."""
    model = attention_model()
    frames = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    files = {FLOAT_FILE: model.SerializeToString()}
    bundle = Bundle.create(tmp_path / "old.finedge", SPEC, files=files, provenance={})
    logits = OnnxRuntimeBackend().open(bundle, variant="fp32")(frames)["logits"]
    reference = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(logits, reference.run(None, {"frames": frames})[0])
