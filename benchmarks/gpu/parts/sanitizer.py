"""compute-sanitizer's four tools on the torch-free program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip

PROGRAM = Path(__file__).resolve().parents[1] / "torch_free.py"
TOOL = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 86  # the exit code for a finding
WORDS = 15  # lines of the report that are kept


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if shutil.which(TOOL) is None:
        raise Skip(f"no {TOOL} on the PATH")
    for tool in TOOLS:
        yield under(tool, seconds=request.seconds_left)


def under(tool: str, *, seconds: float) -> Row:
    """Run the program under one tool."""
    start = time.monotonic()
    command = [
        TOOL,
        "--tool",
        tool,
        "--error-exitcode",
        str(FOUND),
        sys.executable,
        str(PROGRAM),
        "check",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
        )
    except subprocess.TimeoutExpired:
        return {"tool": tool, "pass": None, "reason": f"not finished after {seconds:.0f} s"}
    lines = (done.stdout + done.stderr).splitlines()
    report = [line for line in lines if line.startswith("=========")]
    errors = [json.loads(line)["error"] for line in lines if line.startswith("{")]
    return {
        "tool": tool,
        "pass": done.returncode == 0,
        "exit_code": done.returncode,
        "problems": len(errors),
        "max_error": max(errors, default=None),
        "summary": report[-1] if report else None,
        **({} if done.returncode == 0 else {"report": (report or lines)[:WORDS]}),
        "took_s": round(time.monotonic() - start, 1),
    }
