"""The ONNX Runtime backend: which file runs, with which settings, and what is refused."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.bundle import Tap
from finedge.errors import BundleError, SystemProblem, UsageError
from finedge.runtime.backend import REDUCED_RANGE, SessionOptions
from finedge.runtime.machine.cpu import owned_cores
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from finedge.runtime.ort.session import session_settings

pytestmark = pytest.mark.int8

# Fused kernels round once where Q/DQ in float rounds twice. A value may land on the next step, the
# last layer's value on one beyond it.
STEPS = 2


@pytest.fixture
def batch(tiny_bundle):
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def test_int8_runs_the_cpu_file_and_names_it(tiny_bundle):
    info = OnnxRuntimeBackend().open(tiny_bundle, variant="int8").info
    assert (info.backend, info.file) == ("onnxruntime", "model.int8.cpu.onnx")
    assert info.device
    assert info.versions["onnxruntime"]


def test_int8_takes_the_portable_file_with_a_warning_where_it_is_alone(make_bundle, caplog):
    bundle = make_bundle(files=("model.fp32.onnx", "model.int8.onnx"))
    with caplog.at_level(logging.WARNING):
        assert OnnxRuntimeBackend().open(bundle, variant="int8").info.file == "model.int8.onnx"
    assert "slower than fp32" in caplog.text


def test_a_missing_variant_says_how_to_make_it(make_bundle):
    with pytest.raises(BundleError, match="finedge calibrate"):
        OnnxRuntimeBackend().open(make_bundle(files=("model.fp32.onnx",)), variant="int8")


def test_fp16_runs_its_own_file(tiny_bundle, batch):
    halved = tiny_bundle.extend(
        "test", {"model.fp16.onnx": tiny_bundle.file("model.fp32.onnx")}, {}
    )
    session = OnnxRuntimeBackend().open(halved, variant="fp16")
    assert (session.info.file, session.info.precision) == ("model.fp16.onnx", "fp16")


@pytest.mark.parametrize(("spin", "setting"), [(False, "0"), (True, "1")])
def test_settings_are_one_thread_pool_all_optimisations_and_no_spinning(spin, setting):
    import onnxruntime

    settings = session_settings(SessionOptions(threads=3, spin=spin))
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (3, 1)
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == setting
    assert settings.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert settings.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL


def test_threads_default_to_the_cores_the_process_owns():
    assert session_settings(SessionOptions()).intra_op_num_threads == owned_cores()
    with pytest.raises(UsageError, match="at least 1"):
        SessionOptions(threads=0)


def test_convolutions_of_the_cpu_file_are_fused(tiny_bundle, tmp_path):
    import onnxruntime

    settings = session_settings(SessionOptions())
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        str(tiny_bundle.file("model.int8.cpu.onnx")), settings, providers=["CPUExecutionProvider"]
    )
    ops = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert ops["QLinearConv"] == 1
    assert ops["Conv"] + ops["FusedConv"] == 0


def test_another_provider_than_the_one_asked_for_is_refused(tiny_bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime.InferenceSession,
        "get_providers",
        lambda self: ["OtherExecutionProvider", "CPUExecutionProvider"],
    )
    with pytest.raises(SystemProblem, match="OtherExecutionProvider"):
        OnnxRuntimeBackend().open(tiny_bundle, variant="fp32")


def test_a_file_that_is_no_model_or_lacks_an_output_is_refused(tiny_bundle):
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is no ONNX model"):
        OnnxRuntimeBackend().open(
            tiny_bundle.extend("test", {"model.fp32.onnx": b"not a model"}, {}), variant="fp32"
        )
    model = onnx.load(tiny_bundle.file("model.int8.onnx"))
    model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(BundleError, match=r"refuses .*model\.fp32\.onnx"):
        OnnxRuntimeBackend().open(
            tiny_bundle.extend("test", {"model.fp32.onnx": model.SerializeToString()}, {}),
            variant="fp32",
        )
    model = onnx.load(tiny_bundle.file("model.int8.onnx"))
    model.graph.node.add(op_type="Identity", input=["logits"], output=["renamed"])
    model.graph.output[0].name = "renamed"
    broken = tiny_bundle.extend("test", {"model.fp32.onnx": model.SerializeToString()}, {})
    with pytest.raises(BundleError, match="no output logits"):
        OnnxRuntimeBackend().open(broken, variant="fp32")


def test_taps_are_outputs_beside_the_logits_and_change_nothing(tiny_bundle, batch):
    backend = OnnxRuntimeBackend()
    plain, tapped = (
        s(batch)
        for s in (backend.open(tiny_bundle, variant="fp32"), backend.open_with_taps(tiny_bundle))
    )
    assert set(tapped) == {"logits", "tap/features"}
    np.testing.assert_allclose(tapped["logits"], plain["logits"], rtol=1e-5)
    weights = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tiny_bundle.file("model.fp32.onnx")).graph.initializer
    }
    by_hand = tapped["tap/features"].mean(axis=(2, 3)) @ weights["weights"].T + weights["bias"]
    np.testing.assert_allclose(by_hand, plain["logits"], atol=1e-4)


def test_two_taps_may_share_a_tensor_or_be_the_output(make_bundle, batch):
    bundle = make_bundle(taps=(Tap("a", "relu"), Tap("b", "relu"), Tap("last", "logits")))
    outputs = OnnxRuntimeBackend().open_with_taps(bundle)(batch)
    assert np.array_equal(outputs["tap/a"], outputs["tap/b"])
    assert np.array_equal(outputs["tap/last"], outputs["logits"])


def test_a_tensor_may_carry_the_name_of_its_tap(tiny_bundle, batch):
    backend = OnnxRuntimeBackend()
    expected = backend.open_with_taps(tiny_bundle)(batch)["tap/features"]
    model = onnx.load(tiny_bundle.file("model.fp32.onnx"))
    for node in model.graph.node:
        node.input[:] = ["tap/features" if n == "relu" else n for n in node.input]
        node.output[:] = ["tap/features" if n == "relu" else n for n in node.output]
    named = replace(
        tiny_bundle.extend("test", {"model.fp32.onnx": model.SerializeToString()}, {}),
        taps=(Tap("features", "tap/features"),),
    )
    np.testing.assert_array_equal(backend.open_with_taps(named)(batch)["tap/features"], expected)


def test_a_tap_without_its_tensor_is_refused(tiny_bundle):
    with pytest.raises(BundleError, match="no tensor nowhere"):
        OnnxRuntimeBackend().open_with_taps(replace(tiny_bundle, taps=(Tap("x", "nowhere"),)))


@pytest.mark.parametrize("file", ["model.int8.cpu.onnx", "model.int8.onnx"])
@pytest.mark.parametrize("products", ["exact", "saturating"])
def test_weights_of_either_int8_file_are_scaled_only_where_they_must(
    tiny_bundle, monkeypatch, caplog, products, file
):
    monkeypatch.setenv(OVERRIDE, products)
    with caplog.at_level(logging.INFO):
        info = OnnxRuntimeBackend().open_file(tiny_bundle, file).info
    assert (info.precision == REDUCED_RANGE) is (products == "saturating")
    assert ("scaled to prevent it" in caplog.text) is (products == "saturating")
    assert (info.weight_scale < 1) is (products == "saturating")
    assert OnnxRuntimeBackend().open(tiny_bundle, variant="fp32").info.precision == "fp32"
    exact = OnnxRuntimeBackend(SessionOptions(exact=True)).open_file(tiny_bundle, file)
    assert exact.info.precision == "int8"


def last_step(bundle, file):
    """The step of the quantized logits."""
    return next(
        float(numpy_helper.to_array(t))
        for t in onnx.load(bundle.file(file)).graph.initializer
        if t.name == "logits_scale"
    )


@pytest.mark.parametrize("file", ["model.int8.cpu.onnx", "model.int8.onnx"])
def test_an_exact_session_answers_as_the_file_does_without_fused_products(tiny_bundle, batch, file):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    # Q/DQ as ONNX defines it, in float.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(tiny_bundle.file(file)), settings, providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"frames": batch})
    exact = OnnxRuntimeBackend(SessionOptions(exact=True)).open_file(tiny_bundle, file)
    assert np.abs(exact(batch)["logits"] - expected).max() <= STEPS * last_step(tiny_bundle, file)
