from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import finedge

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("train", "export", "calib", "runtime", "jetson")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_folder_behind_a_link(stage):
    flat = f"finedge/{stage} is a text file: git checked the links out flat"
    assert (ROOT / "finedge" / stage).is_dir(), f"{flat}, and a wheel would lack the stage"
    assert (ROOT / "finedge" / stage).resolve() == ROOT / stage


def test_the_wheel_holds_every_stage(tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"  # setuptools leaves a build/ folder in the tree it builds
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(".*", "demo", "try", "runs", "build", "*.egg-info"),
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True,
        capture_output=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for stage in STAGES:
        assert f"finedge/{stage}/__init__.py" in names, f"the wheel lacks {stage}"
    assert not [n for n in names if n.split("/")[0] in STAGES], (
        "a stage landed at the top level of site-packages"
    )
    assert any(n.startswith("finedge/train/recipes/") for n in names), (
        "the recipes are missing from the wheel"
    )
    assert any(n.endswith("runtime/report/page.html") for n in names), (
        "the report's template is missing from the wheel"
    )


def test_the_device_side_never_imports_torch():
    modules = [
        f"finedge.{p.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for s in ("runtime", "jetson")
        for p in (ROOT / s).rglob("*.py")
    ]
    modules += [
        f"finedge.{p.stem}" for p in (ROOT / "finedge").glob("*.py") if p.stem != "__main__"
    ]
    modules = [m.removesuffix(".__init__") for m in modules]
    if importlib.util.find_spec("jinja2") is None:  # the [report] extra
        explain = (f"finedge.runtime.explain.{m}" for m in ("sheet", "folder", "flips"))
        pages = ("finedge.runtime.report.", *explain)
        modules = [m for m in modules if not m.startswith(pages)]
    if importlib.util.find_spec("uvicorn") is None:  # the [serve] extra
        web = ("finedge.runtime.serve.", "finedge.runtime.sinks.live.")
        modules = [m for m in modules if not m.startswith(web)]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)"
    code += "\nprint([m for m in ('torch', 'torchvision', 'timm') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


def test_the_changelog_names_this_version():
    assert f"## {finedge.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_onnx_runtime_writes_nothing_into_the_home_folder(tmp_path):
    code = "import finedge, onnxruntime as o"
    code += "; o.InferenceSession('examples/birds.finedge/model.fp32.onnx')"
    environment = {
        k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        cwd=ROOT,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
