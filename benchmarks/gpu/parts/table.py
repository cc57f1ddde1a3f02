"""The families trained on pictures, several side by side on the one GPU, in what time is left.

One recipe for all (`table.toml`), seed 0 of every family first, then the next seeds: however early
the time ends, the rows are comparable. Accuracy is that of the last epoch on the test split, which
was looked at once. A training that the deadline cuts off leaves no row.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip

PROGRAM = Path(__file__).resolve().parents[1] / "train_one.py"
SEEDS = range(5)
# name in the table -> model and options
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "cnl": ("cnl", {}),
    "clca_cga edge": ("clca_cga", {"width": "edge"}),
    "cs": ("cs", {}),
    "csca": ("csca", {}),
    "attend_rectify 1x1": ("attend_rectify", {"kernel_size": 1}),
    "nl": ("nl", {}),
    "ca": ("ca", {}),
}
SIDE_BY_SIDE = 6  # processes: enough that the GPU always has work; more would share it in turns


@dataclass(frozen=True)
class Job:
    """One training."""

    family: str
    seed: int

    def command(self, data: Path) -> list[str]:
        """Return the command that trains it and prints one row."""
        model, options = FAMILIES[self.family]
        words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
        return [sys.executable, str(PROGRAM), model, str(self.seed), str(data), *words]


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if request.data is None:
        raise Skip("no --data")
    waiting = [Job(family, seed) for seed in SEEDS for family in FAMILIES]
    under_way: dict[Job, subprocess.Popen[str]] = {}
    finished: queue.Queue[tuple[Job, Row]] = queue.Queue()
    longest = 0.0
    while waiting or under_way:
        while waiting and len(under_way) < SIDE_BY_SIDE and request.seconds_left > longest:
            job = waiting.pop(0)
            under_way[job] = _start(job, request.data, finished)
        if not under_way:
            break
        try:
            job, row = finished.get(timeout=max(0.1, request.seconds_left))
        except queue.Empty:
            break
        del under_way[job]
        longest = max(longest, row.get("took_s", 0.0))
        yield {"family": job.family, "seed": job.seed, **row}
    for process in under_way.values():
        process.kill()
    if under_way:
        yield {"unfinished": [f"{job.family}, seed {job.seed}" for job in under_way]}


def _start(job: Job, data: Path, finished: queue.Queue[tuple[Job, Row]]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        job.command(data), stdout=subprocess.PIPE, text=True, env=environment
    )

    def wait() -> None:
        lines = (process.stdout.read() if process.stdout else "").splitlines()
        code = process.wait()
        row = json.loads(lines[-1]) if lines and not code else {"reason": f"exit code {code}"}
        finished.put((job, {**row, "took_s": round(time.monotonic() - start, 1)}))

    threading.Thread(target=wait, daemon=True).start()
    return process
