"""Every probe answers: broken packages become reasons, and what works goes on working."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finedge.errors import BackendMissing, SystemProblem
from finedge.jetson.doctor.facts import examine
from finedge.runtime import backend as backends
from finedge.runtime.backend import backend_names, get_backend, why_not
from finedge.runtime.machine import packages
from finedge.runtime.machine.packages import (
    MAX_TEXT,
    PackageBroken,
    PackageMissing,
    failure_text,
    load_package,
    package_version,
    reason_text,
)
from tests.runtime.cuda.fakes import RaisingCuda

# What cuda-python 12.6.2 and cuda-bindings 12.8.0 do where there is no libcuda.
RAISING_BINDING = """
def cudaGetDeviceCount():
    raise RuntimeError("Failed to dlopen libcuda.so.1")
def cudaRuntimeGetVersion():
    return 0, 12060
def __getattr__(name):
    raise RuntimeError(f'Function "{name}" not found')
"""


def install(folder: Path, **packages: str) -> None:
    """Write packages by name: `cuda_bindings_runtime` is cuda.bindings.runtime."""
    for name, text in packages.items():
        path = folder.joinpath(*name.split("_"))
        path.mkdir(parents=True, exist_ok=True)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
        (path / "__init__.py").write_text(text)


def run_doctor(folder: Path) -> dict[str, Any]:
    """Run `finedge doctor` where the packages of `folder` come first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "finedge", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    reasons = [why for name, why in facts["backends"].items() if name not in backends.FAKES]
    # Without torch a broken onnxruntime leaves nothing that runs.
    assert done.returncode == (0 if None in reasons else 3), done.stderr
    return facts


def test_broken_gpu_packages_leave_the_cpu_usable(tmp_path: Path) -> None:
    install(
        tmp_path,
        cuda_bindings_runtime=RAISING_BINDING,
        tensorrt="raise RuntimeError('this is a placeholder')",
        pynvml="raise OSError('libnvidia-ml.so.1: wrong ELF class')",
    )
    facts = run_doctor(tmp_path)
    assert facts["backends"]["onnxruntime"] is None
    assert facts["why_no_gpu"].startswith("no NVIDIA driver")
    assert facts["backends"]["tensorrt"] == facts["why_no_gpu"]
    assert facts["tensorrt"]["tensorrt"]["why_not"] == (
        "the package tensorrt does not load: RuntimeError: this is a placeholder: "
        "pip install --force-reinstall tensorrt"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def __getattr__(name): return lambda *arguments: 7",
        "def __getattr__(name): return lambda *arguments: (None, None)",
        "def cudaGetDeviceCount(): raise OSError('wrong ELF class')",
    ],
)
def test_a_binding_of_another_kind_is_a_reason(tmp_path: Path, text: str) -> None:
    install(tmp_path, cuda_bindings_runtime=text)
    facts = run_doctor(tmp_path)
    assert facts["backends"]["onnxruntime"] is None
    assert facts["cuda_versions"]["binding"] is None
    assert "the CUDA binding fails: " in facts["why_no_gpu"]
    assert "pip install --force-reinstall cuda" in facts["why_no_gpu"]


@pytest.mark.parametrize(
    ("package", "text", "reason"),
    [
        ("cv2", "raise OSError('libavcodec.so: no such file')", "OSError: libavcodec.so"),
        ("cv2", "raise ImportError('libGL.so.1: no such file')", "libGL.so.1"),
        ("cv2", "", "no __version__"),
        ("onnxruntime", "raise ValueError('numpy.dtype size changed')", "size changed"),
        ("onnxruntime", "", "no __version__"),
        ("onnx", "raise RuntimeError('of another protobuf')", "of another protobuf"),
        ("onnx", "", "no __version__"),
    ],
)
def test_each_broken_package_is_a_problem_of_the_doctor(
    tmp_path: Path, package: str, text: str, reason: str
) -> None:
    install(tmp_path, **{package: text})
    facts = run_doctor(tmp_path)
    problems = [problem["what"] for problem in facts["problems"]]
    assert any(package in problem and reason in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)
    fixes = {problem["fix"] for problem in facts["problems"] if package in problem["what"]}
    if package != "cv2":
        assert fixes == {f"pip install --force-reinstall {package}"}


def test_a_binding_that_raises_leaves_auto_and_the_doctor_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finedge.runtime.cuda.gpu.binding", RaisingCuda)
    assert get_backend("auto").name == "onnxruntime"
    facts = examine()
    assert facts["gpu"] is None
    assert facts["why_no_gpu"].startswith("no NVIDIA driver")


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package that adds the backend `foreign` by its entry point."""
    module = ModuleType("foreign_package")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = EntryPoint("foreign", "foreign_package:Backend", "finedge.backends")
    monkeypatch.setattr(backends, "entry_points", lambda group: [entry])
    return module


class BrokenProbe:
    name = "foreign"

    def why_not(self) -> str | None:
        raise RuntimeError("Failed to dlopen\nlibforeign.so")


class BrokenConstructor:
    def __init__(self) -> None:
        raise SystemProblem("foreign needs a licence", fix="buy one")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (
            BrokenProbe,
            "the check of this backend fails: RuntimeError: Failed to dlopen libforeign.so",
        ),
        (BrokenConstructor, "foreign needs a licence: buy one"),
        (None, "has no attribute 'Backend'"),
    ],
)
def test_a_foreign_backend_that_raises_has_its_failure_as_reason(
    foreign: ModuleType, backend: type | None, reason: str
) -> None:
    if backend is not None:
        foreign.Backend = backend  # type: ignore[attr-defined]
    assert "foreign" in backend_names()
    assert reason in str(why_not("foreign"))
    with pytest.raises(BackendMissing, match="'foreign' cannot run here"):
        get_backend("foreign")
    assert reason in examine()["backends"]["foreign"]


def test_a_foreign_backend_that_is_not_importable_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = EntryPoint("foreign", "no_such_package:Backend [extra]", "finedge.backends")
    monkeypatch.setattr(backends, "entry_points", lambda group: [entry])
    assert why_not("foreign") == "No module named 'no_such_package': pip install no_such_package"


def test_a_missing_package_and_a_broken_one_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, broken="import numpy.no_such_part", empty="", quits="raise SystemExit(5)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PackageMissing):
        load_package("no_such_package")
    with pytest.raises(PackageMissing):
        load_package("numpy.no_such_part")
    with pytest.raises(PackageBroken, match=r"No module named 'numpy\.no_such_part'"):
        load_package("broken")
    with pytest.raises(PackageBroken, match="no __version__"):
        package_version("empty")
    with pytest.raises(PackageBroken, match="the package quits does not load: SystemExit: 5"):
        load_package("quits")


def test_a_broken_package_is_installed_again_by_the_name_that_pip_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, broken="raise RuntimeError('placeholder')")
    monkeypatch.syspath_prepend(tmp_path)
    names = {"broken": ["broken-cu13", "broken-cu13"]}
    monkeypatch.setattr(packages, "packages_distributions", lambda: names)
    with pytest.raises(PackageBroken) as caught:
        load_package("broken")
    assert reason_text(caught.value).endswith(
        "RuntimeError: placeholder: pip install --force-reinstall broken-cu13"
    )


def test_the_text_of_a_failure_is_one_short_line() -> None:
    assert failure_text(KeyError()) == "KeyError"
    assert failure_text(OSError("a\n  b")) == "OSError: a b"
    assert len(failure_text(OSError("x" * 1000))) == MAX_TEXT
