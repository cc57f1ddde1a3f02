"""What only OpenVINO's backend does; tests/contract has what every backend must do."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from finedge.errors import BundleError
from finedge.runtime.backend import SessionOptions, why_not
from finedge.runtime.openvino import backend as backend_module
from finedge.runtime.openvino.backend import OpenVinoBackend
from finedge.runtime.openvino.session import session_settings
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE

ONE = SessionOptions(threads=1)
EXACT = SessionOptions(threads=1, exact=True)
# Float kernels of two libraries, on scores up to 10.
CLOSE = 1e-3


@pytest.fixture(scope="module", autouse=True)
def _needs_openvino():
    reason = why_not("openvino")
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def replace_file(bundle, file, model):
    """Return the bundle with another model in the place of a file."""
    return bundle.extend("export", {file: model.SerializeToString()}, {})


def test_it_loads_without_the_package_that_sends_reports():
    program = (
        "import sys; from finedge.runtime.openvino.library import openvino; openvino();"
        "assert 'openvino_telemetry' not in sys.modules, 'loaded'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backend_module, "is_installed", lambda name: name != "openvino")
    assert OpenVinoBackend().why_not() == "needs openvino: pip install 'finedge[openvino]'"


def test_a_signal_after_a_session_was_closed_reaches_its_handler(tiny_bundle):
    """In a process of its own: OpenVINO's signal stack, unmapped, would end the test's."""
    program = (
        "import os, signal, sys, numpy as np; from pathlib import Path;"
        "from finedge.bundle import Bundle;"
        "from finedge.runtime.openvino.backend import OpenVinoBackend;"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7));"
        "session = OpenVinoBackend().open(Bundle.load(Path(sys.argv[1])), variant='fp32');"
        "session(np.zeros((1, 32, 32, 3), np.uint8)); session(np.zeros((3, 32, 32, 3), np.uint8));"
        "session.close(); os.kill(os.getpid(), signal.SIGTERM); input()"
    )
    words = [sys.executable, "-c", program, str(tiny_bundle.path)]
    assert subprocess.run(words, check=False).returncode == 7


def test_the_threads_and_the_precision_are_those_of_the_options():
    settings = session_settings(SessionOptions(threads=3))
    assert settings["INFERENCE_NUM_THREADS"] == 3
    assert settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings["PERFORMANCE_HINT"] == "LATENCY"


def test_float_scores_and_taps_are_those_of_onnxruntime(tiny_bundle, batch):
    outputs = OpenVinoBackend(ONE).open_with_taps(tiny_bundle)(batch)
    expected = OnnxRuntimeBackend(ONE).open_with_taps(tiny_bundle)(batch)
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, atol=CLOSE)


def test_exact_scores_are_those_of_the_file(tiny_bundle, batch):
    session = OpenVinoBackend(EXACT).open(tiny_bundle, variant="int8")
    expected = OnnxRuntimeBackend(EXACT).open(tiny_bundle, variant="int8")(batch)["logits"]
    assert session.info.precision == "int8"
    np.testing.assert_allclose(session(batch)["logits"], expected, atol=CLOSE)


def test_where_products_saturate_it_multiplies_in_float_and_says_so(
    tiny_bundle, batch, monkeypatch, caplog
):
    monkeypatch.setenv(OVERRIDE, "saturating")
    session = OpenVinoBackend(ONE).open(tiny_bundle, variant="int8")
    assert "multiplies model.int8.cpu.onnx in float" in caplog.text
    expected = OpenVinoBackend(EXACT).open(tiny_bundle, variant="int8")(batch)["logits"]
    np.testing.assert_array_equal(session(batch)["logits"], expected)


def test_an_array_may_be_dropped_or_changed_after_the_call(tiny_bundle, batch):
    session = OpenVinoBackend(ONE).open(tiny_bundle, variant="fp32")
    for frames in (batch[:1], batch):
        expected = session(frames)["logits"].copy()
        temporary = frames.copy()
        scores = session(temporary)["logits"]
        temporary[:] = 0
        session(temporary)
        np.testing.assert_array_equal(scores, expected)


def test_a_model_with_functions_opens(tiny_bundle, batch):
    path = tiny_bundle.file("model.fp32.onnx")
    model = onnx.load(path)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    opsets = [helper.make_opsetid("", 20)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Rectify", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    relu.op_type, relu.domain = "Rectify", "own"
    changed = replace_file(tiny_bundle, path.name, model)
    np.testing.assert_allclose(
        OpenVinoBackend(ONE).open(changed, variant="fp32")(batch)["logits"],
        OnnxRuntimeBackend(ONE).open(tiny_bundle, variant="fp32")(batch)["logits"],
        atol=CLOSE,
    )


def test_a_model_that_openvino_refuses_is_a_bundle_error(tiny_bundle):
    path = tiny_bundle.file("model.fp32.onnx")
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "NoSuchOp"
    with pytest.raises(BundleError, match=r"OpenVINO .* refuses .*model\.fp32\.onnx"):
        OpenVinoBackend(ONE).open(replace_file(tiny_bundle, path.name, model), variant="fp32")


def test_a_model_with_another_input_is_refused(tiny_bundle):
    path = tiny_bundle.file("model.fp32.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(BundleError, match="takes frames: float32"):
        OpenVinoBackend(ONE).open(replace_file(tiny_bundle, path.name, model), variant="fp32")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_the_calling_thread_is_not_pinned_to_a_core(tiny_bundle, batch):
    before = os.sched_getaffinity(0)
    OpenVinoBackend(ONE).open(tiny_bundle, variant="fp32")(batch)
    assert os.sched_getaffinity(0) == before
