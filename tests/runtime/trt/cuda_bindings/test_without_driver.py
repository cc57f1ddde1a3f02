"""Without a usable driver every probe answers, in every version of the binding.

cuda-python 12.6.2 and cuda-bindings 12.8 raise RuntimeError where newer versions return status 35.
"""

from __future__ import annotations

import pytest

from finedge.runtime.ort.backend import OnnxRuntimeBackend
from tests.runtime.trt.cuda_bindings.conftest import compile_driver

# A library that loads only to say its version: TensorRT itself is not looked into without a GPU.
TENSORRT = '__version__ = "10.3.0"\n'


@pytest.fixture(scope="session")
def tensorrt(tmp_path_factory):
    """Return a folder with a module `tensorrt`, so that the probe asks CUDA."""
    folder = tmp_path_factory.mktemp("tensorrt")
    (folder / "tensorrt.py").write_text(TENSORRT)
    return folder


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory):
    """Return a folder with a libcuda.so.1 of CUDA 11.4 that has only a few functions."""
    return compile_driver("gcc", "old_driver.c", tmp_path_factory.mktemp("old_driver"))


def answers(results):
    """Return the answers of the probes; none may have raised."""
    raised = {name: result["raised"] for name, result in results.items() if "raised" in result}
    assert raised == {}
    return {name: result["answer"] for name, result in results.items()}


@pytest.fixture(scope="module")
def without(binding, tensorrt):
    return binding.run("probes.py", folders=[tensorrt])


def test_every_probe_answers_without_a_driver(without):
    results = answers(without)
    assert results["gpu"] is None
    assert "driver" in results["why_no_gpu"]
    assert results["why_no_gpu"] == results["TensorRtBackend.why_not"]
    assert results["doctor graphics"] == [None, results["why_no_gpu"]]
    assert results["doctor"] == {"gpu": None, "why_no_gpu": results["why_no_gpu"]}
    assert results["doctor plugin_image"]["file"] is None


def test_the_answer_says_what_to_do(without):
    reason = answers(without)["why_no_gpu"]
    assert reason.startswith("no NVIDIA driver: install one")
    assert "--runtime nvidia" in reason


def test_auto_takes_onnxruntime(without):
    results = answers(without)
    assert results["every why_not"]["onnxruntime"] is None
    assert results["auto"] == OnnxRuntimeBackend.name


def test_every_probe_answers_with_a_driver_that_is_too_old(binding, tensorrt, old_driver):
    results = answers(binding.run("probes.py", libraries=old_driver, folders=[tensorrt]))
    assert results["gpu"] is None
    assert "the NVIDIA driver supports CUDA 11.4, the binding needs" in results["why_no_gpu"]
    assert results["TensorRtBackend.why_not"] == results["why_no_gpu"]
    assert results["doctor graphics"] == [None, results["why_no_gpu"]]
    assert results["auto"] == OnnxRuntimeBackend.name
