"""`auto` on backends that build engines: only variants with an engine are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from finedge.runtime.backend import HasEngines
from finedge.runtime.classifier import Classifier
from finedge.runtime.ort.gpu.backend import OnnxRuntimeGpuBackend
from finedge.runtime.ort.gpu.providers import PROVIDERS
from finedge.runtime.trt.backend import TensorRtBackend
from finedge.runtime.trt.build.options import BuildOptions
from tests.runtime.trt.conftest import device  # noqa: F401

RTX, TENSORRT, CUDA = PROVIDERS


def auto(bundle):
    with Classifier.open(bundle, backend="tensorrt") as classifier:
        return classifier.variant, classifier.choice


def build(device, bundle, *precisions):  # noqa: F811
    for precision in precisions:
        device.build(bundle, BuildOptions(precision), library=device.library)


def test_engines_that_exist_are_compared_and_none_is_built(timer, device, tiny_bundle):  # noqa: F811
    build(device, tiny_bundle, "fp32", "int8")
    timer.ms = {"fp32": 1.0, "int8": 2.0}
    assert auto(tiny_bundle)[0] == "fp32"
    assert (timer.runs, len(device.built)) == (1, 2)
    variant, choice = auto(tiny_bundle)
    assert (variant, choice.basis, timer.runs) == ("fp32", "remembered", 1)


def test_the_only_engine_runs_whichever_it_is(timer, device, tiny_bundle):  # noqa: F811
    build(device, tiny_bundle, "fp32")
    variant, choice = auto(tiny_bundle)
    assert (variant, choice.basis) == ("fp32", "single")
    assert (timer.runs, len(device.built)) == (0, 1)


def test_a_new_engine_is_a_new_question(timer, device, tiny_bundle):  # noqa: F811
    build(device, tiny_bundle, "fp32")
    auto(tiny_bundle)
    build(device, tiny_bundle, "int8")
    assert (auto(tiny_bundle)[0], timer.runs) == ("int8", 1)


def test_without_an_engine_the_one_of_int8_is_built(timer, device, tiny_bundle):  # noqa: F811
    variant, choice = auto(tiny_bundle)
    assert (variant, [options.precision for options in device.built]) == ("int8", ["int8"])
    assert "no engine is built yet" in choice.reason
    assert auto(tiny_bundle)[0] == "int8"
    assert (timer.runs, len(device.built)) == (0, 1)


@pytest.mark.parametrize(("provider", "variants"), [(CUDA, ("fp32",)), (TENSORRT, ()), (RTX, ())])
def test_onnxruntime_compares_what_was_compiled_before(
    tiny_bundle, tmp_path, monkeypatch, provider, variants
):
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path))
    module = "finedge.runtime.ort.gpu.backend"
    monkeypatch.setattr(f"{module}.gpu_name", lambda: "RTX 4090")
    monkeypatch.setattr(f"{module}.probe.why_not", lambda p: None if p is provider else "no")
    backend = OnnxRuntimeGpuBackend()
    assert backend.built_variants(tiny_bundle) == variants
    for folder in (path for path in Path(tmp_path).rglob("model.*.onnx") if path.is_dir()):
        (folder / "engine").touch()
    usual = [v for v in backend.usual_variants if v in tiny_bundle.variants()]
    assert list(backend.built_variants(tiny_bundle)) == usual
    assert backend.engines(tiny_bundle) == (provider.short, "RTX 4090", *usual)


def test_only_the_backends_of_gpus_have_engines():
    assert isinstance(TensorRtBackend(), HasEngines)
    assert isinstance(OnnxRuntimeGpuBackend(), HasEngines)
