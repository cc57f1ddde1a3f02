"""The C++ plugin on real CUDA: its harness calls it as TensorRT does, on maps in device memory.

The library, the harness and the cases were compiled and written by `prepare.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip

LIMIT = 2e-3  # weights and results are rounded to half precision; values are of size 1
EXPECTED = "expected.npy"  # float64, in the order of y.bin; NaN where y.bin has padding
SECONDS = 15.0  # a case


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if request.carried.plugin is None:
        raise Skip(f"no folder plugin in {request.carried.folder}: run prepare.py")
    with suppress(OSError):  # a transfer may lose the bit
        (request.carried.plugin / "harness").chmod(0o755)
    for case in sorted((request.carried.plugin / "cases").iterdir()):
        yield {"test": case.name, **called(request.carried.plugin, case)}


def called(plugin: Path, case: Path) -> Row:
    """Let the harness enqueue one case twice, and compare its output with float64."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(case, Path(name) / "case"))
        command = [plugin / "harness", plugin / "libfinedge_plugin.so", folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            return {"pass": False, "reason": str(problem)}
        if done.returncode:
            reason = f"exit code {done.returncode}: {done.stderr[-500:]}"
            return {"pass": False, "reason": reason}
        status = json.loads(done.stdout)["status"]
        error = largest_error(folder)
    return {"pass": status == 0 and error <= LIMIT, "status": status, "error": error}


def largest_error(folder: Path) -> float:
    """Return the largest absolute error of y.bin; infinite where an element is not a number."""
    expected = np.load(folder / EXPECTED)
    y = np.fromfile(folder / "y.bin", np.float16).astype(np.float64)
    inside = ~np.isnan(expected)
    return float(np.nan_to_num(np.abs(y - expected)[inside], nan=np.inf).max())
