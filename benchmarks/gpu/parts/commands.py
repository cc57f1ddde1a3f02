"""finedge's own commands on a machine with a GPU: train, evaluate, export, verify, doctor.

Each is a process, as a user calls it, on a few classes of the pictures. A row holds the command,
its exit code, and the end of its result.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip

CLASSES = 10
KEPT = ("top1", "n", "loss", "epochs", "images_per_s", "pass", "profile", "split")
KEPT_OF_DOCTOR = (
    "nvidia_driver",
    "cuda",
    "gpu",
    "why_no_gpu",
    "plugin_image",
    "telemetry",
    "backends",
)
# Commands in order; {data}, {run} and the like are folders.
TRAIN = "train --model {model} --recipe demo --data {data} --device cuda --workers 4"
COMMANDS = (
    "doctor",
    TRAIN.format(model="cnl", data="{data}") + " --out {run} --epochs 3 --profile",
    "train --out {run} --resume --epochs 4",
    "evaluate {run} --device cuda",
    "evaluate {run} --device cpu",
    TRAIN.format(model="plain", data="{data}") + " --out {taught} --epochs 2 --teacher {run}",
    TRAIN.format(model="clca_cga", data="{data}")
    + " --out {gathered} --epochs 1 --batch-size 16 --accumulate 2",
    TRAIN.format(model="plain", data="{data}") + " --out {seeds} --epochs 1 --seeds 2",
    TRAIN.format(model="cnl", data="{data}") + " --out {compiled} --epochs 1 --compile",
    "export {run} --out {bundle}",
    "verify {bundle} --data {data}",
    "evaluate {bundle} --data {data}",
)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if request.data is None:
        raise Skip("no --data")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {
            key: str(folder / key) for key in ("run", "taught", "gathered", "seeds", "compiled")
        }
        places |= {
            "data": str(few(request.data, folder / "data")),
            "bundle": str(folder / "b.finedge"),
        }
        for command in COMMANDS:
            yield called(command, places, seconds=request.seconds_left)


def few(data: Path, target: Path) -> Path:
    """Copy a few classes of a folder of images."""
    for split in ("train", "test"):
        for one in sorted((data / split).iterdir())[:CLASSES]:
            shutil.copytree(one, target / split / one.name)
    return target


def called(command: str, places: dict[str, str], *, seconds: float) -> Row:
    """Run one command of finedge."""
    words = [word.format(**places) for word in command.split()]
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "finedge", *words],
            capture_output=True,
            text=True,
            timeout=max(1.0, seconds),
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "4"},
        )
    except subprocess.TimeoutExpired:
        return {"command": command, "pass": None, "reason": "not finished"}
    row = {
        "command": command,
        "pass": done.returncode == 0,
        "exit_code": done.returncode,
        "took_s": round(time.monotonic() - start, 1),
    }
    return {
        **row,
        **_kept(done.stdout),
        **({} if done.returncode == 0 else {"stderr": done.stderr[-1500:]}),
    }


def _kept(stdout: str) -> dict[str, Any]:
    """Return the numbers of a result, or what `doctor` says of the GPU."""
    try:
        result = json.loads(stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return {key: result[key] for key in (*KEPT, *KEPT_OF_DOCTOR) if key in result}
