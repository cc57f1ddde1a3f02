"""How the number of splits over the keys changes the kernel's time: what `launch.plan` should choose on this GPU."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from benchmarks.gpu.device import NO_GPU, clocks, milliseconds, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.parts.timing import HEADS, Shape, graph_of
from benchmarks.gpu.problems import Attention
from finedge.runtime.plugins.launch import KEY_TILE

ROUNDS = 9
SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32)
GRIDS, BATCHES = ("224 L4<-L2", "448 L4<-L3", "448 L4<-L2"), (1, 4, 8, 32)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    driver = open_driver(request.library)
    for batch in BATCHES:
        for grid in GRIDS:
            for channels, shared in HEADS:
                shape = Shape(grid, channels, shared, batch)
                tiles = -(-shape.case.keys // KEY_TILE)
                times = {}
                for splits in (s for s in SPLITS if s <= tiles and s * batch <= 256):
                    attention = Attention(replace(shape.case, splits=splits), driver, device=torch.device("cuda"))
                    graph, calls = graph_of(attention.run)
                    times[splits] = statistics.median(milliseconds(graph.replay) * 1e3 / calls for _ in range(ROUNDS))
                planned = Attention(shape.case, driver, device=torch.device("cuda")).splits
                best = min(times, key=times.__getitem__)
                us = {str(splits): round(time, 2) for splits, time in times.items()}
                yield {**asdict(shape), "planned": planned, "best": best, "us": us, "clocks": clocks()}
                torch.cuda.empty_cache()
