"""Why a provider cannot run here: real packages and processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finedge.runtime.backend import load_backend, usual_variants
from finedge.runtime.ort.gpu import probe
from finedge.runtime.ort.gpu.probe import reason_in, why_not
from finedge.runtime.ort.gpu.providers import OVERRIDE, PROVIDERS, TF32_SWITCH

CUDA = PROVIDERS[-1]
# What onnxruntime-gpu 1.31.1 and onnxruntime-ep-nv-tensorrt-rtx 0.5.0 wrote on a machine without a
# GPU, with and without NVIDIA's libraries.
SITE = "/venv/lib/python3.11/site-packages"
MESSAGES = {
    f"[E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] onnxruntime::Provider& "
    f"onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    f"{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: "
    f"cannot open shared object file: No such file or directory\n": (
        "libonnxruntime_providers_cuda.so does not load: libcublasLt.so.13: "
        "cannot open shared object file: No such file or directory"
    ),
    f"Fail: [ONNXRuntimeError] : 1 : FAIL : Failed to load library {SITE}/"
    f"onnxruntime_ep_nv_tensorrt_rtx/libonnxruntime_providers_nv_tensorrt_rtx.so with error: "
    f"libcuda.so.1: cannot open shared object file: No such file or directory": (
        "libonnxruntime_providers_nv_tensorrt_rtx.so does not load: libcuda.so.1: "
        "cannot open shared object file: No such file or directory"
    ),
    "RuntimeError: cuda_execution_provider_info.cc:63 FromProviderOptions [ONNXRuntimeError] : 1 : "
    'FAIL : Parse Failed to parse provider option "device_id": CUDA failure 36: API call is not '
    "supported in the installed CUDA driver ; GPU=-1 ; hostname=vm ; expr=cudaGetDeviceCount(&n); "
    "\n": "CUDA failure 36: API call is not supported in the installed CUDA driver",
    "Segmentation fault\n": "Segmentation fault",
}


@pytest.fixture
def no_cache():
    """The cached reasons of this process are dropped, before and after."""
    why_not.cache_clear()
    yield
    why_not.cache_clear()


@pytest.mark.parametrize(("message", "reason"), MESSAGES.items())
def test_the_cause_is_taken_from_the_messages(message, reason):
    assert reason_in(message) == reason


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.short)
def test_every_provider_is_answered_for(provider, no_cache):
    reason = why_not(provider)
    assert reason is None or len(reason) > 20


def test_the_backend_names_each_provider_and_what_to_install(monkeypatch, no_cache):
    reason = load_backend("onnxruntime-gpu").why_not()
    if reason is None:
        pytest.skip("a provider runs here")
    assert all(provider.name in reason for provider in PROVIDERS)


def test_what_is_measured_by_default_is_what_the_provider_accelerates(monkeypatch, tiny_bundle):
    backend = load_backend("onnxruntime-gpu")
    for runs, variants in (("cuda", ("fp32",)), ("tensorrt", ("fp32", "int8"))):
        reasons = {p: None if p.short == runs else "no" for p in PROVIDERS}
        monkeypatch.setattr(probe, "why_not", reasons.get)
        assert backend.provider.short == runs
        assert usual_variants(backend, tiny_bundle) == variants


def test_a_provider_may_be_forced(monkeypatch, no_cache):
    monkeypatch.setenv(OVERRIDE, "cuda")
    reason = load_backend("onnxruntime-gpu").why_not()
    assert reason is None or "Tensorrt" not in reason
    monkeypatch.setenv(OVERRIDE, "cude")
    assert "did you mean 'cuda'" in load_backend("onnxruntime-gpu").why_not()
    assert load_backend("onnxruntime-gpu").usual_variants == ("fp32", "fp16", "int8")


def test_a_trial_says_that_onnxruntime_took_another_provider():
    import onnxruntime

    if CUDA.name in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA's provider")
    reason = probe._why_trial_failed(CUDA)
    assert reason == "ONNX Runtime loaded CPUExecutionProvider instead"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
        ("raise SystemExit('no CUDA here')", "ended with 1: no CUDA here"),
        ("", "ended with 0"),
        ("import time; time.sleep(60)", "did not load within"),
    ],
)
def test_a_library_that_ends_its_process_is_a_reason(tmp_path, monkeypatch, code, reason):
    (tmp_path / "dying_trial.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probe, "TRIAL", "dying_trial")
    monkeypatch.setattr(probe, "SECONDS", 3)
    assert reason in str(probe._why_trial_failed(CUDA))


def test_an_onnxruntime_that_does_not_load_is_a_reason(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('compiled for another NumPy')")
    code = "from finedge.runtime.backend import load_backend as load"
    code += "; print(load('onnxruntime-gpu').why_not())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "onnxruntime does not load: ImportError: compiled for another NumPy" in done.stdout


def test_two_packages_in_one_folder_are_named(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.31.1.dist-info"
        folder.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n"
        (folder / "METADATA").write_text(head)
    monkeypatch.syspath_prepend(tmp_path)
    assert "both installed, in one folder" in probe._remedy()


def test_tf32_is_part_of_the_precision_unless_it_is_forbidden(monkeypatch):
    rtx, tensorrt, cuda = PROVIDERS
    monkeypatch.delenv(TF32_SWITCH, raising=False)
    assert rtx.precision("fp32") == tensorrt.precision("fp32") == "fp32 (TF32)"
    assert (cuda.precision("fp32"), tensorrt.precision("int8")) == ("fp32", "int8")
    monkeypatch.setenv(TF32_SWITCH, "0")
    assert tensorrt.precision("fp32") == "fp32"
