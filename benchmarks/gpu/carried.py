"""What travels to the GPU machine beside the repository: the folder `.gpu`, made by `prepare.py`.

Nothing in it is needed: a part that lacks something says so, and is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
SOURCES = (".py", ".cu", ".cpp", ".h", ".toml", ".ptx", ".cubin")
HOUSE = ("finedge", "train", "runtime", "export", "calib", "jetson", "benchmarks/gpu", "tests")


@dataclass(frozen=True)
class Carried:
    """The folder `.gpu`; each property is None where that piece is absent."""

    folder: Path = FOLDER

    @property
    def commit(self) -> str | None:
        """The commit that the pieces were made from, as `git describe` names it."""
        return self._text("commit")

    @property
    def digest(self) -> str | None:
        """`digest_of_sources` where the pieces were made."""
        return self._text("digest")

    @property
    def images(self) -> Path | None:
        """The folder of the attention kernel's machine code for the GPU machine."""
        return self._folder("images")

    @property
    def data(self) -> Path | None:
        """Pictures: train/CLASS and test/CLASS."""
        return self._folder("data")

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """What the shim counts in a whole tile, by the name of the kernel; empty without a file."""
        rows = map(json.loads, (self._text("counts.jsonl") or "").splitlines())
        return {row["kernel"]: row for row in rows}

    @property
    def plugin(self) -> Path | None:
        """The C++ plugin, the harness that calls it, and its cases."""
        return self._folder("plugin")

    @property
    def bindings(self) -> tuple[Path, ...]:
        """One folder a version: `tensorrt_bindings`, and a libnvinfer that is a registry only."""
        folder = self._folder("bindings")
        return tuple(sorted(folder.iterdir())) if folder else ()

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the carried Python packages on its path."""
        paths = [str(ROOT), str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def _text(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def _folder(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_dir() else None


def commit_of_checkout() -> str | None:
    """Return the commit of this checkout; None without git or without a history."""
    # Without locks: a git that a full disk ends would leave one in the checkout.
    git = ["git", "-C", str(ROOT), "--no-optional-locks"]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def digest_of_sources(root: Path = ROOT) -> str:
    """Return 16 hexadecimal digits of the sources: whether two machines run the same program."""
    paths = [
        Path(folder) / name
        for top in HOUSE
        for folder, _, names in os.walk(root / top)  # rglob's way with links changed in 3.13
        for name in names
        if Path(name).suffix in SOURCES
    ]
    sha = hashlib.sha256()
    for path in sorted(paths):
        sha.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return sha.hexdigest()[:16]
