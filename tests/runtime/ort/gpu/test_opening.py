"""What a provider is opened with, and that nothing which ran on the CPU is opened."""

from __future__ import annotations

import logging
import stat
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from finedge.errors import BundleError, SystemProblem
from finedge.graph.onnx_file import read_onnx
from finedge.runtime.backend import SessionInfo, SessionOptions
from finedge.runtime.ort.gpu.opening import PLAIN_QDQ, Opening
from finedge.runtime.ort.gpu.providers import PROVIDERS, Provider, provider_options
from finedge.runtime.ort.session import (
    OnnxRuntimeSession,
    open_model,
    run_error,
    session_settings,
)

RTX, TENSORRT, CUDA = PROVIDERS
FILE = "model.fp32.onnx"
# A provider of the CPU package that takes none of our nodes.
AZURE = Provider("AzureExecutionProvider", "azure", "")


def opening(provider, bundle, variant="fp32"):
    return Opening(provider, bundle, variant, SessionOptions(threads=1), "RTX 4090")


def test_a_session_whose_nodes_ran_on_the_cpu_is_refused(tiny_bundle):
    if AZURE.name not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {AZURE.name}")
    model = read_onnx(tiny_bundle.file(FILE))
    # The list of providers says nothing about that.
    session = onnxruntime.InferenceSession(model, providers=[AZURE.name])
    assert session.get_providers()[0] == AZURE.name
    with pytest.raises(SystemProblem, match=r"ran on CPUExecutionProvider: .*Conv") as failure:
        opening(AZURE, tiny_bundle).open(model, file=FILE)
    assert "assigned to the default CPU EP" in failure.value.what
    assert AZURE.name in failure.value.expected


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_not_there_is_refused_and_stdout_stays_empty(tiny_bundle, capsys):
    missing = Provider("NoSuchExecutionProvider", "none", "")
    with pytest.raises(SystemProblem, match=r"refuses .* on NoSuchExecutionProvider"):
        opening(missing, tiny_bundle).open(read_onnx(tiny_bundle.file(FILE)), file=FILE)
    assert capsys.readouterr().out == ""


def test_a_plugin_that_does_not_load_is_a_typed_error(tiny_bundle, tmp_path, monkeypatch):
    (tmp_path / "libbroken.so").write_text("no library")
    package = f"def get_library_path(): return {str(tmp_path / 'libbroken.so')!r}"
    (tmp_path / "broken_plugin.py").write_text(package)
    monkeypatch.syspath_prepend(tmp_path)
    broken = Provider("BrokenExecutionProvider", "broken", "", module="broken_plugin")
    with pytest.raises(SystemProblem, match="broken_plugin does not load"):
        opening(broken, tiny_bundle).open(read_onnx(tiny_bundle.file(FILE)), file=FILE)


@pytest.mark.parametrize(
    ("variant", "flags"), [("fp32", ("0", "0")), ("fp16", ("1", "0")), ("int8", ("0", "1"))]
)
def test_tensorrt_gets_batch_sizes_precision_and_a_cache(tiny_bundle, tmp_path, variant, flags):
    providers = provider_options(TENSORRT, tiny_bundle, variant=variant, cache=tmp_path)
    assert [name for name, _ in providers] == [TENSORRT.name, CUDA.name]
    options = providers[0][1]
    assert options["trt_profile_min_shapes"] == "frames:1x32x32x3"
    assert options["trt_profile_max_shapes"] == "frames:8x32x32x3"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == flags
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)


def test_the_plugin_gets_batch_sizes_and_a_cache_under_its_own_names(tiny_bundle, tmp_path):
    ((name, options),) = provider_options(RTX, tiny_bundle, variant="fp16", cache=tmp_path)
    assert name == "NvTensorRTRTXExecutionProvider"
    assert options == {
        "nv_profile_min_shapes": "frames:1x32x32x3",
        "nv_profile_opt_shapes": "frames:1x32x32x3",
        "nv_profile_max_shapes": "frames:8x32x32x3",
        "nv_runtime_cache_path": str(tmp_path),
    }


def test_cuda_computes_float32_without_tf32(tiny_bundle):
    ((name, options),) = provider_options(CUDA, tiny_bundle, variant="fp32", cache=None)
    assert (name, options["use_tf32"]) == (CUDA.name, "0")


def test_engines_are_kept_in_the_cache_of_the_user_never_in_the_bundle(
    tiny_bundle, tmp_path, monkeypatch
):
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "cache"))
    folders = {opening(p, tiny_bundle)._cache(FILE) for p in (RTX, TENSORRT)}
    assert len(folders) == 2
    for folder in folders:
        assert folder.is_relative_to(tmp_path / "cache" / "onnxruntime-gpu")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert "rtx-4090" in str(folder)
    assert opening(CUDA, tiny_bundle)._cache(FILE) is None


def test_a_cache_that_cannot_be_written_is_done_without(tiny_bundle, tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "cache"))
    assert opening(TENSORRT, tiny_bundle)._cache(FILE) is None
    assert "built at every start" in caplog.text
    options = provider_options(TENSORRT, tiny_bundle, variant="fp16", cache=None)[0][1]
    assert not any("cache" in name for name in options)


def test_the_log_says_what_takes_minutes_and_what_is_not_accelerated(
    tiny_bundle, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        for opened, file in (
            (opening(TENSORRT, tiny_bundle), FILE),
            (opening(CUDA, tiny_bundle, "int8"), "model.int8.onnx"),
        ):
            opened._log_differences(file, opened._cache(file))
    assert "can take minutes" in caplog.records[0].getMessage()
    assert "does not accelerate int8" in caplog.records[1].getMessage()
    assert CUDA.usual_variants == ("fp32", "fp16")


@pytest.mark.int8
def test_cudas_setting_for_int8_leaves_no_constant_to_dequantise(tiny_bundle, tmp_path):
    settings = session_settings(SessionOptions(threads=1))
    settings.add_session_config_entry(*PLAIN_QDQ)
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    content = tiny_bundle.file("model.int8.onnx").read_bytes()
    open_model(content, settings, providers=["CPUExecutionProvider"], name="it")
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    constants = {tensor.name for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert pairs
    assert not [node for node in pairs if node.input[0] in constants]
    assert Counter(node.op_type for node in graph.node)["QLinearConv"] == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", SystemProblem),
        ("[ONNXRuntimeError] : 11 : EP_FAIL : Non-zero status code returned", SystemProblem),
        ("CUDA failure 2: out of memory ; GPU=0", SystemProblem),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions", BundleError),
    ],
)
def test_a_run_that_fails_blames_the_gpu_or_the_file(text, kind):
    error = run_error(FILE, RuntimeError(text))
    assert isinstance(error, kind)
    assert text in error.what


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_batch_larger_than_the_largest_is_run_in_parts(tiny_bundle, size):
    model = read_onnx(tiny_bundle.file(FILE))
    session = open_model(
        model, session_settings(SessionOptions(threads=1)), providers=None, name="it"
    )
    info = SessionInfo("onnxruntime-gpu", "none", FILE, "fp32")
    batch = np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), np.uint8)
    whole = OnnxRuntimeSession(session, tiny_bundle, info)(batch)
    parts = OnnxRuntimeSession(session, tiny_bundle, info, max_batch=2)(batch)
    np.testing.assert_allclose(parts["logits"], whole["logits"], atol=1e-5)
    assert parts["logits"].shape == whole["logits"].shape
