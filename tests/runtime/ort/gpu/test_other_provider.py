"""A whole opening on a provider that is not the CPU's own: OpenVINO's, in a process that has it.

NVIDIA's providers need a GPU: what they do is not run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from tests.runtime.trt.build.conftest import attention_bundle  # noqa: F401

ROOT = Path(__file__).resolve().parents[4]
CHILD = "tests.runtime.ort.gpu.open_with_openvino"
# Rounding in another order; of float16 1e-3 of the largest logit.
LIMITS = {"model.fp32.onnx": 1e-4, "model.fp16.onnx": 2e-3}

pytestmark = pytest.mark.slow
wheels = pytest.importorskip("tests.wheels")


@pytest.fixture(scope="module")
def environment():
    """The variables of a process that imports ONNX Runtime with OpenVINO's provider."""
    pinned = wheels.pinned(Path(__file__).with_name("wheels-slow.txt"))
    folder = wheels.folder_or_skip(pinned["onnxruntime-openvino==1.24.1"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def logits_of(bundle, file, *, environment, folder):
    """Return the provider's logits of three frames, ONNX Runtime's own, and what the child says."""
    size = bundle.spec.input
    shape = (3, size.height, size.width, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(folder / "batch.npy", batch)
    command = [sys.executable, "-m", CHILD, str(bundle.path), file, str(folder / "batch.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = OnnxRuntimeBackend(SessionOptions(exact=True)).open_file(bundle, file)(batch)
    record = json.loads(done.stdout.splitlines()[-1])
    return np.load(folder / "logits.npy"), expected[bundle.spec.main.name], record


@pytest.mark.parametrize("file", LIMITS)
def test_a_provider_that_computes_everything_is_opened(tiny_bundle, tmp_path, environment, file):
    bundle = tiny_bundle
    if file not in bundle.files:
        bundle = bundle.extend("test", {file: bundle.file("model.fp32.onnx")}, {})
    logits, expected, (precision, versions) = logits_of(
        bundle, file, environment=environment, folder=tmp_path
    )
    np.testing.assert_allclose(logits, expected, atol=LIMITS[file] * np.abs(expected).max())
    assert precision == file.split(".")[1]
    assert set(versions) == {"onnxruntime", "OpenVINOExecutionProvider"}


def test_attention_as_a_function_is_inlined_for_the_provider(
    attention_bundle,  # noqa: F811
    tmp_path,
    environment,
):
    """Version 0.1 wrote functions; a node of an unknown domain would have gone to the CPU."""
    bundle, file = attention_bundle(), "model.fp32.onnx"
    logits, expected, _ = logits_of(bundle, file, environment=environment, folder=tmp_path)
    np.testing.assert_allclose(logits, expected, atol=LIMITS[file] * np.abs(expected).max())


def test_nvidias_plugin_is_answered_for():
    """146 MB: not downloaded by a test."""
    pytest.importorskip("onnxruntime_ep_nv_tensorrt_rtx", reason="the plugin is not installed")
    from finedge.runtime.ort.gpu.probe import _why_trial_failed, why_no_gpu
    from finedge.runtime.ort.gpu.providers import PROVIDERS

    reason = _why_trial_failed(PROVIDERS[0])
    if why_no_gpu() is None:
        pytest.skip(f"there is a GPU, and the trial says: {reason}")
    assert "libcuda.so.1" in reason
