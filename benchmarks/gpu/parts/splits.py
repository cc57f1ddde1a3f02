"""The kernel's time by the number of splits over the keys: what `launch.plan` should choose."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from benchmarks.gpu.device import NO_GPU, clocks, milliseconds, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.parts.timing import graph_of
from benchmarks.gpu.problems import Attention
from benchmarks.gpu.shapes import HEADS, Shape
from finedge.runtime.trt.plugin.driver import Driver
from finedge.runtime.trt.plugin.launch import kernel_for

ROUNDS = 9
MOST = 256  # splits times images
SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32)
GRIDS, BATCHES = ("224 L4<-L2", "448 L4<-L3", "448 L4<-L2"), (1, 4, 8, 32)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    driver = open_driver(request.library)
    for batch in BATCHES:
        for grid in GRIDS:
            for channels, shared in HEADS:
                yield timed(Shape(grid, channels, shared, batch), driver)
                torch.cuda.empty_cache()


def timed(shape: Shape, driver: Driver) -> Row:
    """Time one shape with every number of splits."""
    kernel = kernel_for(d=shape.channels, dv=shape.channels, shared=shape.shared)
    tiles = -(-shape.case.keys // kernel.keys)
    planned = Attention(shape.case, driver, device=torch.device("cuda")).splits
    counts = {planned, *(s for s in SPLITS if s <= tiles and s * shape.batch <= MOST)}
    us = {splits: microseconds(shape, splits, driver) for splits in sorted(counts)}
    best = min(us, key=us.__getitem__)
    times = {str(splits): round(time, 2) for splits, time in us.items()}
    return {**asdict(shape), "planned": planned, "best": best, "us": times, "clocks": clocks()}


def microseconds(shape: Shape, splits: int, driver: Driver) -> float:
    """Return the median of one number of splits."""
    case = replace(shape.case, splits=splits)
    graph, calls = graph_of(Attention(case, driver, device=torch.device("cuda")).run)
    return statistics.median(milliseconds(graph.replay) * 1e3 / calls for _ in range(ROUNDS))
