"""Whether an integrated GPU reads its input in the CPU's pages or in a copy: both are timed.

A mapped input needs no copy. But on a Jetson the GPU does not cache pinned memory (NVIDIA, "CUDA
for Tegra", memory types). A head that reads a frame strided, as Resize and Transpose do, may be
slower there than one copy: 6 MB for 1920 x 1080. Which one wins depends on engine and board.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.trt.lane import ExecutionLane

Memory = Literal["mapped", "copied"]
# Rounds before and while it is measured: about 1 s at 20 ms a batch.
WARM_UP, ROUNDS = 5, 20


def input_times(
    lanes: Mapping[Memory, ExecutionLane], batch: NDArray[np.uint8]
) -> dict[Memory, float]:
    """Return the median milliseconds of a batch, from host memory to host memory, by lane.

    The lanes run in turn: a clock that changes meanwhile changes all of them.
    """
    times: dict[Memory, list[float]] = {memory: [] for memory in lanes}
    for _ in range(WARM_UP + ROUNDS):
        for memory, lane in lanes.items():
            times[memory].append(_milliseconds(lane, batch))
    return {memory: statistics.median(values[WARM_UP:]) for memory, values in times.items()}


def _milliseconds(lane: ExecutionLane, batch: NDArray[np.uint8]) -> float:
    start = perf_counter()
    lane.start(batch)
    lane.finish()
    return (perf_counter() - start) * 1e3
