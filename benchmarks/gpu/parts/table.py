"""The families trained on pictures, several side by side on the one GPU, in what time is left.

One recipe for all (`table.toml`), seed 0 of every family first, then the next seeds: however early
the time ends, the rows are comparable. Accuracy is that of the last epoch on the test split, which
was looked at once. A training that the end of the time cuts off leaves the epoch that it reached,
and its accuracy on the validation split.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import NO_GPU
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.side_by_side import Event, Job, events

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
# Processes: as many as families, so that each has a row when the first of them end.
SIDE_BY_SIDE = len(FAMILIES)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    if request.carried.data is None:
        raise Skip(f"no folder data in {request.carried.folder}: run prepare.py")
    data = request.carried.data
    jobs = [job(family, seed, data) for seed in SEEDS for family in FAMILIES]
    yield from results(
        events(
            jobs,
            most=SIDE_BY_SIDE,
            seconds_left=lambda: request.seconds_left - 2,
            environment=request.carried.environment() | {"OMP_NUM_THREADS": "1"},
        )
    )


def results(seen: Iterator[Event]) -> Iterator[Row]:
    """Yield one row a training: when it ends, or with the last epoch of one that does not."""
    latest: dict[Job, Row] = {}
    for event in seen:
        if event.row is not None:
            latest[event.job] = event.row
            continue
        row = {} if event.code else latest.pop(event.job, {})
        reason = {"reason": f"exit code {event.code}"} if event.code else {}
        yield {**_of(event.job), **row, **reason, "took_s": event.seconds}
    for cut, row in latest.items():
        yield {**_of(cut), **row, "reason": "the time ended"}


def job(family: str, seed: int, data: Path) -> Job:
    """Return the training that prints a row an epoch and one at its end."""
    model, options = FAMILIES[family]
    words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    return Job(family, seed, (sys.executable, str(PROGRAM), model, str(seed), str(data), *words))


def _of(job: Job) -> Row:
    return {"family": job.name, "seed": job.number}
