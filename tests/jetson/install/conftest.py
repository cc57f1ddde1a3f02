"""Root folders of boards, with stand-ins for commands that record their calls.

The release lines are those of real boards. Python is a script. It imports the packages of the root
with the real interpreter, and makes an environment whose pip records its arguments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[3] / "jetson" / "install.sh"
CHECKOUT = ("calib", "export", "finedge", "runtime", "train")


@dataclass(frozen=True)
class Board:
    """The facts of a board that its files hold."""

    release: str | None
    python: str = "3.10"
    tensorrt: str = "10.3.0"
    numpy: str = "1.21.5"
    systemd: int = 249


BOARDS = {
    "jetpack 6.1": Board(
        "# R36 (release), REVISION: 4.0, GCID: 37537400, "
        "BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 04:36:44 UTC 2024"
    ),
    "jetpack 6.2": Board(
        "# R36 (release), REVISION: 4.3, GCID: 38968081, "
        "BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
    ),
    "jetpack 7.0": Board(
        "# R38 (release), REVISION: 2.0, GCID: 41844464, "
        "BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 00:55:42 UTC 2025",
        "3.12",
        "10.13.3.9",
        "1.26.4",
        255,
    ),
    "jetpack 7.1": Board(
        "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64",
        "3.12",
        "10.13.3.9",
        "1.26.4",
        255,
    ),
    "jetpack 7.2": Board(
        "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64",
        "3.12",
        "10.16.2.10",
        "1.26.4",
        255,
    ),
}
OTHERS = {
    "desktop": Board(None),
    "jetpack 5": Board(
        "# R35 (release), REVISION: 4.1, GCID: 33958178, "
        "BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 UTC 2023"
    ),
    "jetpack 6.0": Board(
        "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic, EABI: aarch64",
        tensorrt="8.6.2",
    ),
    "jetpack 8": Board("# R40 (release), REVISION: 1.0, GCID: 0, BOARD: generic, EABI: aarch64"),
    "another file": Board("release forty"),
}

CV2 = """__version__ = "4.8.0"


def getBuildInformation():
    return "  Video I/O:\\n    GStreamer:                   YES (1.20.3)\\n"
"""

PYTHON = """#!/bin/bash
# The board's interpreter.
echo "python $*" >>"$CALLS"
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$4/bin"
    cp "$ROOT/venv-python" "$4/bin/python"
    exit
fi
PYTHONPATH=$ROOT/dist exec "$REAL" -S "$@"
"""
VENV_PYTHON = """#!/bin/bash
echo "venv-python $*" >>"$CALLS"
if [ "$1 $2" = "-m pip" ]; then
    [ ! -e "$ROOT/pip-fails" ] || exit 1
    [ ! -e "$ROOT/pip-waits" ] || {
        touch "$ROOT/pip-is-there"
        for _ in {1..300}; do [ ! -e "$ROOT/pip-waits" ] || sleep 0.1; done
    }
    finedge=$(dirname "$0")/finedge
    printf '#!/bin/bash\\necho "finedge $*" >>"$CALLS"\\necho "{}"\\n' >"$finedge"
    printf '[ ! -e "$ROOT/doctor-fails" ]\\n' >>"$finedge"
    chmod +x "$finedge"
    exit
fi
PYTHONPATH=$ROOT/dist exec "$REAL" -S "$@"
"""
APT = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[ ! -d "$ROOT/apt" ] || cp -r "$ROOT/apt/." "$ROOT/dist/"
"""
SYSTEMCTL = """#!/bin/bash
case "$1" in
    --version) echo "systemd $SYSTEMD ($SYSTEMD.4-1ubuntu8)" ;;
    is-enabled) [ -e "$ROOT/enabled" ] ;;
    is-active) exit 3 ;;
    try-restart) echo "systemctl $*" >>"$CALLS"; [ ! -e "$ROOT/restart-fails" ] ;;
    *) echo "systemctl $*" >>"$CALLS"; [ "$1" != enable ] || touch "$ROOT/enabled" ;;
esac
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@dataclass
class Root:
    """A board's root, and the script run against it."""

    path: Path
    board: Board
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run install.sh as on this board."""
        with self.start(*options) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start install.sh as on this board."""
        environment = {
            "PATH": f"{self.path / 'stubs'}:{os.environ['PATH']}",
            "FINEDGE_ROOT": str(self.path),
            "ROOT": str(self.path),
            "CALLS": str(self.path / "calls"),
            "REAL": sys.executable,
            "SYSTEMD": str(self.board.systemd),
            "PYTHONDONTWRITEBYTECODE": "1",  # a package that changes within a second is read again
            **self.environment,
        }
        command = ["bash", str(self.path / "checkout/jetson/install.sh"), *options]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def calls(self) -> list[str]:
        """The calls in order, without those that only read the packages."""
        file = self.path / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line not in ("python -", "venv-python -")]

    @property
    def current(self) -> Path:
        """The version that is in use."""
        return (self.path / "opt/finedge/current").resolve(strict=True)


def make_checkout(path: Path) -> None:
    """Copy the script into a small checkout: edits in this checkout then change no version name."""
    shutil.copytree(
        INSTALL.parent,
        path / "jetson",
        ignore=lambda folder, names: [n for n in names if Path(folder, n).is_dir()],
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (path / name).touch()
    for folder in CHECKOUT:
        (path / folder).mkdir()
        (path / folder / "__init__.py").touch()


def make_root(path: Path, board: Board) -> Root:
    path.mkdir(parents=True, exist_ok=True)
    make_checkout(path / "checkout")
    if board.release is not None:
        (path / "etc").mkdir()
        (path / "etc/nv_tegra_release").write_text(board.release + "\n# KERNEL_VARIANT: oot\n")
    for name, text in (
        ("tensorrt", f'__version__ = "{board.tensorrt}"\n'),
        ("cv2", CV2),
        ("numpy", f'__version__ = "{board.numpy}"\n'),
    ):
        script(path / "dist" / name / "__init__.py", text)
    script(path / f"usr/bin/python{board.python}", PYTHON)
    script(path / "venv-python", VENV_PYTHON)
    script(path / "stubs/apt-get", APT)
    script(path / "stubs/systemctl", SYSTEMCTL)
    return Root(path, board)


@pytest.fixture(params=BOARDS)
def jetson(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """Each board that is supported."""
    return make_root(tmp_path / "root", BOARDS[request.param])


@pytest.fixture
def orin(tmp_path: Path) -> Root:
    """JetPack 6.2."""
    return make_root(tmp_path / "root", BOARDS["jetpack 6.2"])
