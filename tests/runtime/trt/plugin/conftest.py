"""The kernel on the CPU.

`host_kernel` is a ctypes library of it, `standin_libcuda` the path of a CUDA driver that runs it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from finedge.runtime.trt.plugin.kernels.make import SOURCE
from tests.runtime.trt.plugin.attention import FIRST, opened

HOST = Path(__file__).parent / "host"


def build_host(out, *, source=SOURCE, main="host_kernel.cpp", flags=()):
    """Compile a .cu file for the CPU with the shim: `main` is what goes around it."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++: make setup-system")
    common = (
        "g++",
        "-O1",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-shared",
        "-fPIC",
        f"-I{HOST}",
        f'-DKERNEL_FILE="{source}"',
    )
    subprocess.run([*common, *flags, str(HOST / main), "-o", str(out)], check=True, timeout=120)
    return out


@pytest.fixture(scope="session")
def host_library(tmp_path_factory):
    return opened(build_host(tmp_path_factory.mktemp("host") / "kernel.so"))


@pytest.fixture
def host_kernel(host_library):
    """The kernels on the CPU.

    `run(name, gx, gy, gz, shared, Problem*)` returns a simt::Failure; `order(kind, seed)` sets
    which warp runs first.
    """
    host_library.order(FIRST, 1)
    yield host_library
    host_library.order(FIRST, 1)


@pytest.fixture(scope="session")
def standin_libcuda(tmp_path_factory):
    return build_host(
        tmp_path_factory.mktemp("cuda") / "libcuda.so.1",
        main="standin_cuda.cpp",
        flags=("-Wl,-soname,libcuda.so.1",),
    )
