"""Runs of an execution lane: answers, their errors and times, free memory, and warnings."""

from __future__ import annotations

import logging
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.gpu import fake_engine as fake
from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.trt.lane import ExecutionLane


def run(lane: ExecutionLane, batch: Any) -> Any:
    """Return the answer of a batch, float32."""
    lane.start(batch)
    return lane.finish()["y"]


def error(lane: ExecutionLane, *, batch: int, seed: int) -> float:
    """Return the largest error of a batch as a share of the largest value; NaN is infinite."""
    inputs = fake.queries(batch, seed)
    difference = np.abs(run(lane, inputs).astype(np.float64) - fake.exact(inputs)).max() / float(
        np.abs(fake.keys()).max()
    )
    return float(np.nan_to_num(difference, nan=np.inf))


def free(cuda: Cuda) -> int:
    """Return the free bytes of the device."""
    return int(cuda("cudaMemGetInfo")[0])


def timed(lane: ExecutionLane, batch: Any, *, replays: int, expected: Any) -> tuple[bool, float]:
    """Return whether all answers are the same, and the median microseconds of start and finish."""
    times, same = [], True
    for _ in range(replays):
        start = time.perf_counter()
        answer = run(lane, batch)
        times.append(time.perf_counter() - start)
        same &= bool(np.array_equal(answer, expected))
    return same, round(statistics.median(times) * 1e6, 1)


class Warnings(logging.Handler):
    """Collects the warnings of the lane's logger in a with block."""

    def __enter__(self) -> list[str]:
        self.texts: list[str] = []
        self.logger = logging.getLogger(ExecutionLane.__module__)
        self.logger.addHandler(self)
        return self.texts

    def __exit__(self, *exception: object) -> None:
        self.logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:  # noqa: D102 - logging's name
        self.texts.append(record.getMessage())
