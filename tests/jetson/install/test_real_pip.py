"""The script with a real Python, a real environment and a real pip with a folder of wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import CV2, Board, Root, make_root, script

RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, "
    "BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
# The environment sees the system's packages on PYTHONPATH. On a board it sees them because of
# --system-site-packages.
PYTHON = '#!/bin/bash\nPYTHONPATH=$ROOT/dist exec "$REAL" "$@"\n'
PROJECT = """[project]
name = "finedge"
version = "0.2"
dependencies = ["numpy"]
[project.scripts]
finedge = "finedge:main"
[tool.setuptools]
packages = ["finedge"]
"""
MAIN = 'def main():\n    import numpy\n    print({"numpy": numpy.__version__})\n'


def wheel(
    folder: Path, name: str, version: str, *, needs: tuple[str, ...] = (), code: str = ""
) -> Path:
    """Write a wheel of one module."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": f'__version__ = "{version}"\n{code}',
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *(f"Requires-Dist: {n}" for n in needs),
            ]
        )
        + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n" if code else "",
    }
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(
            f"{info}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
        )
    return path


@pytest.fixture
def board(tmp_path: Path) -> Root:
    """JetPack 6.2, with an index that also has packages that must never be installed."""
    root, index = make_root(tmp_path / "root", Board(RELEASE)), tmp_path / "index"
    index.mkdir()
    for name in ("opencv-python", "tensorrt", "torch"):
        wheel(index, name, "99.0")
    for name, version in (
        ("numpy", "1.26.4"),
        ("numpy", "2.4.6"),
        ("cuda-python", "12.6.2"),
        ("cuda-python", "13.5.0"),
        ("onnxruntime", "1.23.2"),
    ):
        wheel(index, name, version)
    (root.path / "dist/cv2/__init__.py").write_text(CV2)
    script(root.path / "usr/bin/python3.10", PYTHON)
    root.environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONPATH": str(root.path / "dist"),
    }
    return root


def installed(root: Root) -> set[str]:
    process = subprocess.run(
        [root.current / "bin/python", "-m", "pip", "list", "--local", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(process.stdout.split())


def test_the_environment_has_finedge_and_nothing_that_jetpack_has(
    board: Root, tmp_path: Path
) -> None:
    finedge = wheel(
        tmp_path,
        "finedge",
        "0.1.0",
        needs=("numpy>=1.26", "onnxruntime", "opencv-python; platform_machine == 'never'"),
        code=MAIN,
    )
    process = board.run("--from", str(finedge))
    assert process.returncode == 0, process.stderr
    assert {
        "finedge==0.1.0",
        "numpy==1.26.4",
        "cuda-python==12.6.2",
        "onnxruntime==1.23.2",
    } <= installed(board)
    assert not [
        name for name in installed(board) if name.startswith(("opencv", "tensorrt", "torch"))
    ]


def test_pip_fails_rather_than_shadows_a_package_of_jetpack(board: Root, tmp_path: Path) -> None:
    process = board.run(
        "--from", str(wheel(tmp_path, "finedge", "0.1.0", needs=("opencv-python>=4",), code=MAIN))
    )
    assert process.returncode == 4
    assert "opencv-python<0" in process.stdout
    assert "run it again" in process.stderr
    assert not (board.path / "opt/finedge/current").exists()
    assert list((board.path / "opt/finedge/versions").iterdir()) == []


def test_a_checkout_is_built_and_its_requirements_are_wheels(board: Root) -> None:
    """`--only-binary` is for the requirements: the checkout itself is built."""
    # 70.1 builds wheels without the package `wheel`.
    pytest.importorskip("setuptools", minversion="70.1")
    checkout = board.path / "checkout"
    (checkout / "pyproject.toml").write_text(PROJECT)
    (checkout / "finedge/__init__.py").write_text(MAIN)
    # Of an older build: setuptools takes these files into the wheel.
    (checkout / "build/lib/finedge").mkdir(parents=True)
    (checkout / "build/lib/finedge/gone.py").touch()
    before = sorted(checkout.rglob("*"))
    # pip reads this as the option's value: 0 is "no isolation".
    board.environment |= {
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": os.pathsep.join([str(board.path / "dist"), *_of_setuptools()]),
    }
    process = board.run()
    assert process.returncode == 0, process.stderr
    assert {"finedge==0.2", "numpy==1.26.4"} <= installed(board)
    assert not list(board.current.rglob("gone.py"))
    assert sorted(checkout.rglob("*")) == before  # root leaves nothing in a user's checkout


def _of_setuptools() -> list[str]:
    import setuptools

    return [str(Path(setuptools.__file__).parents[1])]


def test_this_python_can_make_environments() -> None:
    """Without it the tests above would say little about the script."""
    assert (
        subprocess.run([sys.executable, "-c", "import venv, ensurepip"], check=False).returncode
        == 0
    )
