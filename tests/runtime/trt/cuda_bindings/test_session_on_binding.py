"""Our session on the real binding that JetPack 6 has, over a driver whose device is the CPU.

cuda-python 12.6 and cuda-bindings 12.8 implement CUDA's runtime API over a few functions of the
driver, which host_driver.cpp has. Later versions contain NVIDIA's own runtime, which asks the
driver for functions that nobody documents.
"""

from __future__ import annotations

import pytest

from tests.runtime.trt.cuda_bindings.conftest import compile_driver, versions

SERVED = versions("cuda-python==12.6", "cuda-bindings==12.8")
pytestmark = pytest.mark.parametrize("binding", SERVED, indirect=True, scope="session")


@pytest.fixture(scope="session")
def host_driver(tmp_path_factory):
    return compile_driver("g++", "host_driver.cpp", tmp_path_factory.mktemp("host_driver"))


@pytest.fixture(scope="module", params=["copied", "mapped"])
def results(request, binding, host_driver):
    settings = {"STANDIN_INTEGRATED": "1"} if request.param == "mapped" else {}
    return binding.run("session.py", libraries=host_driver, **settings)


def test_the_gpu_is_read_from_the_bindings_own_types(results):
    integrated = results["gpu"].pop("integrated")
    assert results["gpu"] == {
        "name": "Stand-in",
        "compute_capability": "8.7",
        "processors": 8,
        "memory_mib": 8192,
        "driver": "12.6",
    }
    assert integrated in (True, False)


def test_answers_are_exact_and_all_memory_is_freed(results):
    session = results["session"]
    assert session["failures"] == []
    assert session["calls"] == [True] * 6
    assert session["streamed"] == [True] * 6
    assert session["used"] > 10
    assert session["left"] == 0
    assert [name for name, _ in session["layers"]] == ["conv", "gemm"]


def test_every_batch_size_has_its_graph(results):
    assert [text for text in results["logged"] if "no CUDA graph" in text] == []


def test_a_full_memory_and_a_refused_call_are_named(results):
    error, text = results["full"]
    assert error == "OutOfDeviceMemory"
    assert "123 of 8192 MiB are free" in text
    error, text = results["refused"]
    assert error == "SystemProblem"
    assert "cudaFree failed: cudaErrorInvalidValue (1)" in text
    assert results["no error"] is None
