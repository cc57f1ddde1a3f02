"""The script with a real Python, a real environment and a real pip, which finds its wheels in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import CV2, Board, Root, make_root, script

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
# The system's packages reach the environment on PYTHONPATH here, as those of a board do through --system-site-packages.
PYTHON = '#!/bin/bash\nPYTHONPATH=$ROOT/dist exec "$REAL" "$@"\n'
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
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
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
    """JetPack 6.2, with an index that also offers what must never be taken."""
    root, offered = make_root(tmp_path / "root", Board(RELEASE)), tmp_path / "index"
    offered.mkdir()
    for name in ("opencv-python", "tensorrt", "torch"):
        wheel(offered, name, "99.0")
    for name, version in (
        ("numpy", "1.26.4"),
        ("numpy", "2.4.6"),
        ("cuda-python", "12.6.2"),
        ("cuda-python", "13.5.0"),
        ("onnxruntime", "1.23.2"),
    ):
        wheel(offered, name, version)
    (root.path / "dist/cv2/__init__.py").write_text(CV2)
    script(root.path / "usr/bin/python3.10", PYTHON)
    root.environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(offered),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONPATH": str(root.path / "dist"),
    }
    return root


def installed(root: Root) -> set[str]:
    listed = subprocess.run(
        [root.current / "bin/python", "-m", "pip", "list", "--local", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def test_the_environment_holds_finedge_numpy_1_and_cuda_12_6_and_nothing_of_jetpack(
    board: Root, tmp_path: Path
) -> None:
    finedge = wheel(
        tmp_path,
        "finedge",
        "0.1.0",
        needs=("numpy>=1.26", "onnxruntime", "opencv-python; platform_machine == 'never'"),
        code=MAIN,
    )
    done = board.run("--from", str(finedge))
    assert done.returncode == 0, done.stderr
    assert {
        "finedge==0.1.0",
        "numpy==1.26.4",
        "cuda-python==12.6.2",
        "onnxruntime==1.23.2",
    } <= installed(board)
    assert not [
        name for name in installed(board) if name.startswith(("opencv", "tensorrt", "torch"))
    ]


def test_pip_fails_rather_than_shadows_what_jetpack_brings(board: Root, tmp_path: Path) -> None:
    done = board.run(
        "--from", str(wheel(tmp_path, "finedge", "0.1.0", needs=("opencv-python>=4",), code=MAIN))
    )
    assert done.returncode == 4
    assert "opencv-python<0" in done.stdout
    assert "run it again" in done.stderr
    assert not (board.path / "opt/finedge/current").exists()
    assert list((board.path / "opt/finedge/versions").iterdir()) == []


def test_a_checkout_is_built_and_what_it_needs_is_taken_as_wheels(board: Root) -> None:
    """`--only-binary` is for what the checkout needs: the checkout itself is built."""
    pytest.importorskip(
        "setuptools", minversion="70.1"
    )  # builds wheels without the package `wheel`
    checkout = board.path / "checkout"
    text = '[project]\nname = "finedge"\nversion = "0.2"\ndependencies = ["numpy"]\n[project.scripts]\nfinedge = "finedge:main"\n'
    (checkout / "pyproject.toml").write_text(text + '[tool.setuptools]\npackages = ["finedge"]\n')
    (checkout / "finedge/__init__.py").write_text(MAIN)
    (checkout / "build/lib/finedge").mkdir(
        parents=True
    )  # of an older build: setuptools takes what lies there into the wheel
    (checkout / "build/lib/finedge/gone.py").touch()
    before = sorted(checkout.rglob("*"))
    # pip reads this as the option's value: 0 is "no isolation".
    board.environment |= {
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": os.pathsep.join([str(board.path / "dist"), *_of_setuptools()]),
    }
    done = board.run()
    assert done.returncode == 0, done.stderr
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
