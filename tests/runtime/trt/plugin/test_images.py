"""The images that ship: what the source makes, what drivers load, and what they take of a GPU."""

import ctypes
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finedge.errors import FinedgeError, SystemProblem
from finedge.runtime.trt.plugin.image import FOLDER, OLD_ABI, images
from finedge.runtime.trt.plugin.kernels import make as maker
from finedge.runtime.trt.plugin.kernels import nvrtc
from finedge.runtime.trt.plugin.kernels.make import RECORD, SOURCE, TARGETS, differing, make
from finedge.runtime.trt.plugin.kernels.nvrtc import (
    WHEELS,
    CompileError,
    Nvrtc,
    Usage,
    usage,
    wheel_folder,
)
from finedge.runtime.trt.plugin.launch import COMBINE, SEPARATE, SHARED
from tests.runtime.trt.plugin.attention import ROOT

KERNELS = {COMBINE, *(k.name for k in (*SEPARATE, *SHARED))}
LEAST_SHARED = (
    101376  # bytes a block may have on sm_86, sm_89 and sm_120, the least of all from sm_80 on
)
PTX, CUBIN = (
    FOLDER / "cross_layer_attention.sm_80.ptx",
    FOLDER / "cross_layer_attention.sm_87.cubin",
)
# CUresult
NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION = 209, 222


def reason(find):
    try:
        find()
    except SystemProblem as problem:
        return str(problem)
    return ""


def nvrtc_13():
    folder = wheel_folder("cu13")
    return Nvrtc(folder / "lib/libnvrtc.so.13", folder / "include")


def ptxas():
    """The assembler that Triton brings."""
    spec = importlib.util.find_spec("triton")
    path = Path(spec.origin).parent / "backends/nvidia/bin/ptxas" if spec else None
    return path if path and path.is_file() else None


needs_12 = pytest.mark.skipif(bool(reason(Nvrtc.of_cuda_12)), reason=reason(Nvrtc.of_cuda_12))
needs_13 = pytest.mark.skipif(
    bool(reason(lambda: nvrtc_13().version)), reason="needs NVRTC 13, which comes with PyTorch"
)


@pytest.fixture(scope="module")
def built():
    return maker.build()


def fits(used):
    assert set(used) == KERNELS
    for name, taken in used.items():
        assert taken.registers <= 255, name
        assert taken.spills == taken.stack == 0, name


@needs_12
def test_the_committed_images_are_what_the_source_makes(built):
    assert differing(built) == [], "run `make kernels` and commit the images"
    assert set(built) == {path.name for path in FOLDER.iterdir()}


def test_the_record_is_about_these_files():
    record = json.loads((FOLDER / RECORD).read_text())
    assert record["source"] == {SOURCE.name: hashlib.sha256(SOURCE.read_bytes()).hexdigest()}, (
        "the kernel changed: make kernels"
    )
    assert record["images"] == {
        name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in TARGETS
    }
    assert record["nvrtc"] == [12, 6]
    assert {image.path.name for image in images()} == set(TARGETS)


def test_every_kernel_fits_every_gpu_it_is_for():
    used = json.loads((FOLDER / RECORD).read_text())["sm_87"]
    assert set(used) == KERNELS
    for name, taken in used.items():
        assert taken["registers"] <= 255, name
        assert taken["spills"] == taken["stack"] == 0, name
        assert taken["shared"] <= LEAST_SHARED, name


@pytest.mark.parametrize("kernel", [*SEPARATE, *SHARED], ids=lambda k: k.name)
def test_as_many_blocks_are_resident_as_the_registers_hold(kernel):
    used = json.loads((FOLDER / RECORD).read_text())["sm_87"][kernel.name]["registers"]
    of_a_warp = -(-used * 32 // 256) * 256  # registers are given out in groups of 256
    assert kernel.resident == 65536 // (of_a_warp * kernel.threads // 32)


def test_the_ptx_loads_on_drivers_of_cuda_12_6_and_gpus_from_sm_80_on():
    text = PTX.read_text()
    major, minor, target = re.search(
        r"^\.version (\d+)\.(\d+)\n\.target (\S+)\n", text, re.MULTILINE
    ).groups()
    assert (int(major), int(minor)) <= (8, 5)
    assert target == "sm_80"
    assert set(re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE)) == KERNELS
    assert "\n\t.loc" not in text  # line information
    assert "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" in text


def test_the_cubin_is_for_orin_and_of_the_elf_abi_that_cuda_12_loads():
    data = CUBIN.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert data[7:9] == OLD_ABI
    assert data[48] == 87
    assert b"debug_line" not in data


@pytest.mark.parametrize("path", [PTX, CUBIN], ids=lambda p: p.suffix)
def test_no_path_of_the_machine_that_made_it_is_inside(path):
    assert not re.search(rb"site-packages|/home/|/include|/tmp/", path.read_bytes())


@needs_12
@pytest.mark.slow
def test_on_sm_80_too_nothing_spills():
    fits(Nvrtc.of_cuda_12().compile(SOURCE, target="sm_80").usage)


@needs_13
@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_90", "sm_110", "sm_120"])
def test_the_compiler_of_cuda_13_takes_the_source_for_newer_gpus(target):
    # In a process of its own: NVRTC 13 opens libcuda.so.1, and crashes where that is the stand-in.
    code = (
        "import json; from finedge.runtime.trt.plugin.kernels.nvrtc import as_json; "
        "from tests.runtime.trt.plugin.test_images import SOURCE, nvrtc_13; "
        f"print(json.dumps(as_json(nvrtc_13().compile(SOURCE, target={target!r}).usage)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    fits({name: Usage(**taken) for name, taken in json.loads(done.stdout).items()})


@pytest.mark.slow
@pytest.mark.skipif(ptxas() is None, reason="needs the ptxas that Triton brings")
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_120"])
def test_the_shipped_ptx_assembles_for_the_gpus_that_compile_it(target, tmp_path):
    done = subprocess.run(
        [ptxas(), "-v", f"-arch={target}", PTX, "-o", tmp_path / "image"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    fits(usage(done.stderr))


def load(library, image):
    """What the stand-in driver says to an image, with its 0 byte."""
    cuda = ctypes.CDLL(str(library))
    context = ctypes.c_void_p()
    assert (
        cuda.cuInit(0),
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        cuda.cuCtxSetCurrent(context),
    ) == (0, 0, 0)
    return cuda.cuModuleLoadData(ctypes.byref(ctypes.c_void_p()), image.read())


@pytest.mark.parametrize(
    ("capability", "driver", "ptx", "cubin"),
    [
        ("8.7", "12060", 0, 0),
        ("8.9", "12060", 0, NO_BINARY_FOR_GPU),
        ("12.0", "13000", 0, NO_BINARY_FOR_GPU),
        ("7.5", "12060", NO_BINARY_FOR_GPU, NO_BINARY_FOR_GPU),
        ("8.7", "12040", UNSUPPORTED_PTX_VERSION, 0),
    ],
)
def test_a_driver_loads_them_or_says_why_not(
    standin_libcuda, monkeypatch, capability, driver, ptx, cubin
):
    monkeypatch.setenv("STANDIN_CC", capability)
    monkeypatch.setenv("STANDIN_DRIVER_VERSION", driver)
    assert {image.path.suffix: load(standin_libcuda, image) for image in images()} == {
        ".ptx": ptx,
        ".cubin": cubin,
    }


@needs_12
def test_a_stale_image_is_named_and_only_then_written(built, monkeypatch, tmp_path):
    monkeypatch.setattr(maker, "build", lambda: built)
    folder = shutil.copytree(FOLDER, tmp_path / "images")
    (folder / PTX.name).write_bytes(b"old")
    with pytest.raises(FinedgeError, match=rf"{re.escape(PTX.name)} in(.|\n)*make kernels"):
        make(check=True, folder=folder)
    assert (folder / PTX.name).read_bytes() == b"old"
    make(check=False, folder=folder)
    assert differing(built, folder=folder) == []


def test_without_the_wheels_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemProblem, match=re.escape(f"pip install {WHEELS}")):
        maker.build()


@needs_13
def test_a_compiler_of_cuda_13_makes_no_image_that_ships(monkeypatch):
    monkeypatch.setattr(nvrtc, "wheel_folder", lambda name: nvrtc_13().include)
    monkeypatch.setattr(Nvrtc, "version", (13, 2))
    with pytest.raises(SystemProblem, match=r"NVRTC 13.2(.|\n)*12.6"):
        Nvrtc.of_cuda_12()


@needs_12
def test_a_source_that_does_not_compile_is_answered_with_the_log(tmp_path):
    (tmp_path / "wrong.cu").write_text("int x = ;")
    with pytest.raises(CompileError, match=r"wrong.cu(.|\n)*expected an expression"):
        Nvrtc.of_cuda_12().compile(tmp_path / "wrong.cu", target="sm_87")
