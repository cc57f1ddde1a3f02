"""Our Python plugin through TensorRT's real bindings on a GPU, plain and in a stream capture.

No TensorRT is needed, and none is tested: what is tested are the bindings' own trampolines into
Python, with CUDA under them. Each version of the bindings runs `bound_plugin.py` in a process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.results import parsed

PROGRAM = Path(__file__).resolve().parents[1] / "bound_plugin.py"
SECONDS = 25.0  # a version


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    folders = request.carried.bindings
    if not folders:
        raise Skip(f"no folder bindings in {request.carried.folder}: run prepare.py")
    for folder in folders:
        seconds = min(SECONDS, request.seconds_left)
        yield from of_version(folder, library=request.library, seconds=seconds)


def of_version(folder: Path, *, library: str, seconds: float) -> Iterator[Row]:
    """Yield what one version of the bindings gave, and why it ended early."""
    command = [sys.executable, str(PROGRAM), str(folder), "--library", library]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=max(1.0, seconds)
        )
        text, reason = done.stdout, f"exit code {done.returncode}: {done.stderr[-500:]}"
        whole = done.returncode == 0
    except subprocess.TimeoutExpired as late:
        out = late.stdout or ""
        text, whole = out if isinstance(out, str) else out.decode(errors="replace"), False
        reason = f"not finished after {seconds:.0f} s"
    yield from (row for row in map(parsed, text.splitlines()) if row is not None)
    if not whole:
        yield {"test": "process", "version": folder.name, "pass": False, "reason": reason}
