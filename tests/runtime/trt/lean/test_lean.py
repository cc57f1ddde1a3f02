"""TensorRT 11.4's real lean runtime (46 MB) on the CPU: plugin registry, and engines it refuses.

Every case runs in a process of its own, because a fault of the library ends the process. Without a
driver `Runtime(logger)` of this version logs "CUDA initialization failure with error: 35" and
returns an object whose next call is a segmentation fault.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from tests.jetson.plugin.conftest import SOURCE, run
from tests.jetson.plugin.real_headers import MISSING, NO_CUDA, cuda_include, headers
from tests.wheels import folder_or_skip, pinned

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
CREATOR = {"name": OP.name, "version": str(OP.version), "namespace": OP.domain}
# The first bytes of an engine of TensorRT 8 and later.
MAGIC = b"ftrt"
NOISE = np.random.default_rng(0).bytes(1 << 20)
ENGINES = {
    "empty": b"",
    "text": b"no engine at all" * 8,
    "zeros": bytes(4096),
    "noise": NOISE,
    "magic only": MAGIC,
    "magic and zeros": MAGIC + bytes(4096),
    "magic and noise": MAGIC + NOISE,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def lean():
    """Return a function that runs a step of steps.py."""
    wheels = pinned(HERE / "wheels-slow.txt").values()
    paths = os.pathsep.join([*(str(folder_or_skip(wheel)) for wheel in wheels), str(ROOT)])

    def start(*arguments):
        process = subprocess.run(
            [sys.executable, HERE / "steps.py", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert process.returncode == 0, f"exit {process.returncode}: {process.stderr[-2000:]}"
        return json.loads(process.stdout.splitlines()[-1])

    return start


@pytest.fixture(scope="module")
def cpp_plugin(tmp_path_factory):
    """The C++ libraries, built by cmake against the newest headers of TensorRT that are here."""
    versions, cuda = headers(), cuda_include()
    if not versions:
        pytest.skip(MISSING)
    if cuda is None:
        pytest.skip(NO_CUDA)
    folder = tmp_path_factory.mktemp("cpp_plugin")
    options = [f"-DNVINFER_INCLUDE={versions[-1].folder}", f"-DCUDA_INCLUDE={cuda}"]
    run("cmake", "-S", SOURCE, "-B", folder, *options)
    run("cmake", "--build", folder)
    return folder


def test_the_python_creator_registers_once_and_twice(lean):
    answer = lean("registry")
    assert answer["version"].startswith("11.4")
    assert (answer["before"], answer["after"]) == (None, CREATOR)
    assert answer["under ''"] is None
    assert answer["listed"] == [1, 1]
    assert answer["plugin"]


def test_the_cpp_plugin_is_loaded_from_its_library(lean, cpp_plugin):
    answer = lean("library", cpp_plugin / "libfinedge_plugin.so")
    assert (answer["before"], answer["after"]) == (None, CREATOR)
    assert answer["loaded"]
    assert answer["under ''"] is None
    assert answer["listed"] == [1]
    assert answer["plugin"]


def test_opening_the_autoload_library_registers_the_cpp_plugin(lean, cpp_plugin):
    answer = lean("autoload", cpp_plugin / "libfinedge_plugin_autoload.so")
    assert (answer["before"], answer["after"]) == (None, CREATOR)
    assert answer["under ''"] is None
    assert answer["listed"] == [1]
    assert answer["plugin"]


@pytest.mark.parametrize("data", ENGINES.values(), ids=ENGINES)
def test_what_is_no_engine_gives_a_typed_error_and_no_crash(lean, data, tmp_path):
    path = tmp_path / "x.engine"
    path.write_bytes(data)
    answer = lean("engine", path)
    assert answer["error"] == "SystemProblem"
    assert answer["fix"]
