"""Training steps of every family on random images, and a float16 forward pass against float32.

One process for each backbone and size of an image (`train_steps.py`), side by side: their planning
overlaps, their times do not.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.side_by_side import Job, events

PROGRAM = Path(__file__).resolve().parents[1] / "train_steps.py"
SIDES = (224, 448)
BACKBONES = ("efficientnet_lite0", "resnet50")
HALF_SIDE = 224  # where float16 is compared: each further size is planned for again, twice


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    with tempfile.NamedTemporaryFile() as lock:
        jobs = [job(backbone, side, lock.name) for side in SIDES for backbone in BACKBONES]
        for event in events(jobs, most=len(jobs), seconds_left=lambda: request.seconds_left - 1):
            if event.row is not None:
                yield event.row
            elif event.code:
                yield {"what": event.job.name, "reason": f"exit code {event.code}"}
        if request.seconds_left < 2:
            yield {"what": "end", "reason": "the time ended before all families were timed"}


def job(backbone: str, side: int, lock: str) -> Job:
    """Return the process for one backbone and side."""
    half = ("--half",) if side == HALF_SIDE else ()
    command = (sys.executable, str(PROGRAM), backbone, str(side), "--lock", lock, *half)
    return Job(f"{backbone} {side}", side, command)
