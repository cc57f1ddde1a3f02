"""Real versions of CUDA's Python bindings, each in a process of its own and without a driver."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.wheels import folder_or_skip, pinned

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
WHEELS = pinned(HERE / "wheels.txt")
LOADER = WHEELS.pop("cuda-pathfinder==1.9.1")  # the newer bindings import it
SLOW = pinned(HERE / "wheels-slow.txt")


def versions(*starts):
    """Return the pytest parameters of the versions that begin so, e.g. "cuda-bindings==12.8"."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in SLOW if name.startswith(starts)]
    return [*(name for name in WHEELS if name.startswith(starts)), *slow]


@dataclass(frozen=True)
class Binding:
    """One version; `hidden` is a folder that hides the driver of this machine."""

    name: str
    path: str
    hidden: Path

    def run(self, script, *arguments, libraries=None, folders=(), **settings):
        """Run a script of this folder with the binding; return the JSON that it prints.

        `libraries` is a folder with a libcuda.so.1; without one there is no driver. `settings` are
        environment variables.
        """
        paths = [*map(str, folders), self.path, str(ROOT)]
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["LD_LIBRARY_PATH"] = str(libraries or self.hidden)
        environment |= settings
        process = subprocess.run(
            [sys.executable, HERE / script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env=environment,
        )
        assert process.returncode == 0, f"{self.name}: {process.stderr[-2000:]}"
        return json.loads(process.stdout.splitlines()[-1])


def compile_driver(compiler, source, folder):
    """Compile a libcuda.so.1 into a folder; return the folder."""
    if shutil.which(compiler) is None:
        pytest.skip(f"not installed: {compiler} (make setup-system)")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", folder / "libcuda.so.1", HERE / source], check=True)
    return folder


@pytest.fixture(scope="session")
def no_driver(tmp_path_factory):
    """Return a folder to search for libraries first: what is called libcuda there is no library."""
    folder = tmp_path_factory.mktemp("no_driver")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return folder
    (folder / "libcuda.so.1").touch()
    return folder


@pytest.fixture(scope="session", params=versions("cuda-"))
def binding(request, no_driver):
    wheel = (WHEELS | SLOW)[request.param]
    path = os.pathsep.join(str(folder_or_skip(w)) for w in (wheel, LOADER))
    return Binding(request.param, path, no_driver)
