"""Calls of the CUDA driver, on a stand-in for libcuda.

It runs kernels on the CPU and refuses what a real driver refuses.
"""

import ctypes
import json

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import DriverError
from finedge.runtime.trt.plugin.driver import OCCUPANCY, USUAL_RESIDENT, Driver
from finedge.runtime.trt.plugin.image import FOLDER
from finedge.runtime.trt.plugin.launch import COMBINE, SEPARATE, SHARED
from tests.runtime.trt.plugin.conftest import build_host

KERNELS = (*SEPARATE, *SHARED)


@pytest.fixture
def library(standin_libcuda):
    """The stand-in with a current context."""
    cuda, context = ctypes.CDLL(str(standin_libcuda)), ctypes.c_void_p()
    assert [
        cuda.cuInit(0),
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        cuda.cuCtxSetCurrent(context),
    ] == [0, 0, 0]
    yield str(standin_libcuda)
    cuda.cuCtxSetCurrent(None)


@pytest.mark.parametrize("name", [k.name for k in KERNELS] + [COMBINE])
def test_every_kernel_has_the_shared_memory_it_is_launched_with(name):
    measured = json.loads((FOLDER / "images.json").read_text())["sm_87"][name]
    assert measured.get("shared", 0) == {k.name: k.shared_bytes for k in KERNELS}.get(name, 0)


def test_the_device_is_described(library, monkeypatch):
    monkeypatch.setenv("STANDIN_CC", "8.9")
    monkeypatch.setenv("STANDIN_PROCESSORS", "128")
    monkeypatch.setenv("STANDIN_DRIVER_VERSION", "13000")
    driver = Driver(library)
    kernels = driver.kernels()
    assert (driver.version, driver.capability, kernels.processors, kernels.shared_optin) == (
        13000,
        89,
        128,
        101376,
    )


@pytest.mark.parametrize(
    ("capability", "version", "suffix"),
    [
        ("8.7", "12060", ".cubin"),
        ("8.6", "12060", ".ptx"),
        ("9.0", "12060", ".ptx"),
        ("11.0", "13000", ".ptx"),
    ],
)
def test_the_driver_takes_the_image_that_was_chosen(
    library, monkeypatch, capability, version, suffix
):
    monkeypatch.setenv("STANDIN_CC", capability)
    monkeypatch.setenv("STANDIN_DRIVER_VERSION", version)
    kernels = Driver(library).kernels()
    assert kernels.image.path.suffix == suffix
    assert all(kernels.function(k.name, shared_bytes=k.shared_bytes).value for k in KERNELS)


def test_a_kernel_is_loaded_and_given_its_shared_memory_once(library, monkeypatch, tmp_path):
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "calls"))
    driver = Driver(library)
    for _ in range(3):
        driver.kernels().function("cla_512", shared_bytes=SEPARATE[-1].shared_bytes)
        driver.kernels().function("cla_64", shared_bytes=SEPARATE[0].shared_bytes)
    calls = [
        line
        for line in (tmp_path / "calls").read_text().splitlines()
        if line.startswith(("cuModule", "cuFunc"))
    ]
    assert calls == [
        "cuModuleLoadData cubin 0",
        "cuModuleGetFunction cla_512",
        f"cuFuncSetAttribute cla_512 8 {SEPARATE[-1].shared_bytes}",
        "cuModuleGetFunction cla_64",
    ]


def test_the_driver_is_asked_once_what_fits_a_multiprocessor(library, monkeypatch, tmp_path):
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "calls"))
    kernels = Driver(library).kernels()
    # 164 KB of shared memory, 1 KB of each block taken by the driver, and 1,536 threads.
    expected = [min(167936 // (k.shared_bytes + 1024), 1536 // k.threads) for k in KERNELS]
    assert [kernels.resident(k) for k in (*KERNELS, *KERNELS)] == 2 * expected
    calls = [c for c in (tmp_path / "calls").read_text().splitlines() if OCCUPANCY in c]
    assert calls == [f"{OCCUPANCY} {k.name} {k.threads} {k.shared_bytes}" for k in KERNELS]


def test_a_kernel_that_fits_nowhere_counts_as_one_block(library, monkeypatch):
    monkeypatch.setenv("STANDIN_RESIDENT", "0")
    assert Driver(library).kernels().resident(KERNELS[0]) == 1


def test_a_driver_that_cannot_count_blocks_is_logged(tmp_path, caplog):
    flags = ("-Wl,-soname,libcuda.so.1", "-DSTANDIN_WITHOUT_OCCUPANCY")
    path = build_host(tmp_path / "libcuda.so.1", main="standin_cuda.cpp", flags=flags)
    kernels = Driver(str(path)).kernels()
    assert [kernels.resident(k) for k in KERNELS] == [
        min(k.resident, USUAL_RESIDENT) for k in KERNELS
    ]
    assert f"the CUDA driver has no {OCCUPANCY}; 2 blocks of cla_64 a" in caplog.text


def test_a_device_with_less_shared_memory_is_refused_before_the_launch(library):
    with pytest.raises(
        SystemProblem,
        match=r"(?s)cla_512 takes 300000 bytes.*at most 166912.*--attention decomposed",
    ):
        Driver(library).kernels().function("cla_512", shared_bytes=300_000)


def test_an_error_names_the_call_and_the_drivers_words(library):
    driver = Driver(library)
    with pytest.raises(
        DriverError, match=r"cuModuleGetFunction failed with 500: CUDA_ERROR_NOT_FOUND"
    ):
        driver.kernels().function("cla_9", shared_bytes=0)


def test_a_thread_without_a_context_is_told_so(library):
    driver = Driver(library)
    ctypes.CDLL(library).cuCtxSetCurrent(None)
    with pytest.raises(
        DriverError, match=r"cuCtxGetId failed with 201: CUDA_ERROR_INVALID_CONTEXT"
    ):
        driver.kernels()


@pytest.mark.parametrize("name", ["libnocuda.so.1", "libc.so.6"])
def test_no_driver_or_one_before_cuda_12_says_what_is_needed(name):
    with pytest.raises(DriverError, match=r"(?s)no CUDA driver: .*CUDA 12.0 or newer"):
        Driver(name)
