"""NVIDIA's bindings of each version, driven in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.trt.bindings.mock_library import make, wheel
from tests.runtime.trt.plugin.conftest import build_host
from tests.wheels import folder_or_skip

ROOT = Path(__file__).parents[4]
INSIDE = Path(__file__).parent / "inside"
# A part of the suite that runs inside the process: its file and what it is about.
PARTS = ("names", "plugin_life", "session", "session_failures", "builder", "failures")
PLUGINS = ("results", "fixtures")
TIMEOUT = 300


@dataclass(frozen=True)
class Run:
    """One process: its tests' results in order, and how it ended."""

    rows: list[dict[str, Any]]
    returncode: int
    output: str

    def failures(self, part: str) -> str:
        """Return what went wrong in a part, or ''."""
        rows = [row for row in self.rows if row["part"] == part]
        texts = [
            f"{row['test']}: {row['outcome']}\n{row['text']}" for row in rows if not _good(row)
        ]
        crashed = self.returncode not in (0, 1)
        if crashed and (not rows or rows == self.rows[-len(rows) :]):  # it ended here or before
            texts.append(f"the process ended with {self.returncode}: {self.output[-3000:]}")
        return "\n".join(texts) if rows or texts else f"no test ran: {self.output[-3000:]}"


def _good(row: dict[str, Any]) -> bool:
    return row["outcome"] != "failed"  # a test may skip for a version, with its reason


@pytest.fixture(scope="session")
def standin(tmp_path_factory):
    """The CUDA driver that runs our kernel on the CPU."""
    library = tmp_path_factory.mktemp("standin") / "libcuda.so.1"
    return build_host(library, main="standin_cuda.cpp", flags=("-Wl,-soname,libcuda.so.1",))


@pytest.fixture(scope="session")
def bindings(tmp_path_factory):
    """A function: the folder with the bindings of a version and the mock beside them."""
    folders = {}

    def folder(version):
        if version not in folders:
            require_tools()
            folder_or_skip(wheel(version))
            folders[version] = make(version, tmp_path_factory.mktemp("bindings"))
        return folders[version]

    return folder


@pytest.fixture(scope="session")
def run(bindings, standin, tmp_path_factory):
    """A function: all parts with the bindings of a version, once a version."""
    runs = {}

    def result(version):
        if version not in runs:
            files = [INSIDE / f"{part}.py" for part in PARTS]
            place = tmp_path_factory.mktemp("run")
            runs[version] = run_inside(bindings(version), files, standin=standin, place=place)
        return runs[version]

    return result


def run_inside(bindings: Path, files: list[Path], *, standin: Path, place: Path) -> Run:
    """Run tests in a process that finds the bindings; `place` is an empty folder."""
    variables = environment(bindings, standin=str(standin), place=place)
    results = Path(variables["RESULTS"])
    results.touch()
    options = [f"-ptests.runtime.trt.bindings.inside.{name}" for name in PLUGINS]
    options += [
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "--noconftest",
        "--capture=sys",
        "--tb=short",
    ]
    options += ["--rootdir", str(ROOT), "--basetemp", str(place / "temporary")]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT
    )
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return Run(rows, done.returncode, done.stdout + done.stderr)


def environment(bindings: Path, *, standin: str, place: Path) -> dict[str, str]:
    """Return the variables of a process that finds the bindings and writes only into `place`."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(bindings), str(ROOT)]),
        "STANDIN_LIBCUDA": standin,
        "FINEDGE_CACHE": str(place / "cache"),
        "RESULTS": str(place / "results.jsonl"),
    }


def require_tools() -> None:
    """Skip where the mock cannot be compiled."""
    absent = [tool for tool in ("g++", "readelf") if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: make setup-system")
