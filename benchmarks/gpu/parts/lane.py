"""The session's code on real CUDA: buffers, streams, CUDA graphs, errors, nothing left allocated.

An engine of TensorRT is missing here; one whose layer is the attention kernel stands in for it
(`fake_engine.py`). Needs cuda-bindings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gpu import fake_engine as fake
from benchmarks.gpu.lane_runs import Warnings, error, free, run, timed
from benchmarks.gpu.part import Request, Row, Skip
from finedge.errors import SystemProblem
from finedge.runtime.cuda.binding import Cuda, OutOfDeviceMemory, binding
from finedge.runtime.cuda.gpu import gpu, why_no_gpu
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.lane import ExecutionLane

LIMIT = 1.5e-3  # of the largest value
REPLAYS, OPENED, WARM, TURNS = 1000, 200, 20, 200  # turns: an even number
TOO_MUCH = 1 << 42  # bytes


def rows(request: Request) -> Iterator[Row]:
    reason = why_no_gpu()
    if reason is not None:
        raise Skip(reason)
    cuda = Cuda(binding())
    cuda("cudaFree", 0)  # makes the context
    yield {"test": "gpu", "pass": True, "gpu": vars(gpu())}
    engine = fake.engine(cuda)
    for test in (
        answers,
        mapped,
        replays,
        capture_fails,
        other_thread,
        out_of_memory,
        lane_out_of_memory,
        opened_and_closed,
        two_lanes,
    ):
        start = time.monotonic()
        try:
            row = test(cuda, engine)
        except Exception as error:
            row = {"pass": False, "reason": f"{type(error).__name__}: {error}"}
        yield {"test": test.__name__, **row, "took_s": round(time.monotonic() - start, 2)}


def answers(cuda: Cuda, engine: Engine, *, mapped: bool = False) -> dict[str, Any]:
    """Batches of several sizes, each by a graph of its own."""
    lane = ExecutionLane(engine, cuda=cuda, mapped=mapped)
    errors = [error(lane, batch=batch, seed=seed) for seed, batch in enumerate((1, 3, 8, 1, 8, 3))]
    graphs = sum(plan.graph is not None for plan in lane._plans.values())
    lane.close()
    return {
        "pass": max(errors) <= LIMIT and graphs == 3,
        "max_error": max(errors),
        "graphs": graphs,
    }


def mapped(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """The same in memory that host and device share, as on a Jetson."""
    return answers(cuda, engine, mapped=True)


def replays(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """A graph a thousand times: the same bits, and its time against enqueueing the same work."""
    batch = fake.queries(1, seed=0)
    lane = ExecutionLane(engine, cuda=cuda, mapped=False)
    first = run(lane, batch)
    same, graph = timed(lane, batch, replays=REPLAYS, expected=first)
    lane._plans = {rows: replace(plan, graph=None) for rows, plan in lane._plans.items()}
    also, enqueued = timed(lane, batch, replays=REPLAYS, expected=first)
    lane.close()
    return {"pass": same and also, "replays": REPLAYS, "graph_us": graph, "enqueued_us": enqueued}


def capture_fails(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """A layer that allocates spoils the capture: the lane runs without a graph, and warns.

    The next lane captures again.
    """

    def allocate(stream: int) -> None:
        cuda("cudaFree", cuda("cudaMalloc", 1 << 20))

    spoilt = replace(engine, handle=replace(engine.handle, before=allocate))
    with Warnings() as warnings:
        lane = ExecutionLane(spoilt, cuda=cuda, mapped=False)
        errors = [error(lane, batch=batch, seed=1) for batch in (2, 2, 8)]
        graphs = sum(plan.graph is not None for plan in lane._plans.values())
        lane.close()
    after = answers(cuda, engine)
    good = max(errors) <= LIMIT and graphs == 0 and len(warnings) == 2 and after["pass"]
    return {
        "pass": good,
        "max_error": max(errors),
        "graphs": graphs,
        "warnings": warnings[:2],
        "after": after,
    }


def other_thread(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """Captures while another thread allocates and frees: no capture fails."""
    stop, problems = threading.Event(), []

    def churn() -> None:
        try:
            while not stop.is_set():
                cuda("cudaFree", cuda("cudaMalloc", 1 << 16))
        except SystemProblem as problem:
            problems.append(str(problem))

    thread = threading.Thread(target=churn)
    thread.start()
    graphs = []
    for seed in range(20):
        lane = ExecutionLane(engine, cuda=cuda, mapped=False)
        error(lane, batch=2, seed=seed)
        graphs.append(lane._plans[2].graph is not None)
        lane.close()
    stop.set()
    thread.join()
    return {
        "pass": all(graphs) and not problems,
        "captured": sum(graphs),
        "of": len(graphs),
        "problems": problems[:1],
    }


def out_of_memory(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """An allocation that no GPU has room for raises the typed error, and the next call works."""
    try:
        cuda.allocate("cudaMalloc", TOO_MUCH, size=TOO_MUCH)
    except OutOfDeviceMemory as problem:
        return {"pass": answers(cuda, engine)["pass"], "text": str(problem)}
    return {"pass": False, "reason": "no error"}


def lane_out_of_memory(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """A lane that does not fit raises the typed error and leaves nothing allocated."""
    large = replace(engine, handle=replace(engine.handle, device_memory_size_v2=TOO_MUCH))
    seen = []
    for _ in range(20):
        try:
            ExecutionLane(large, cuda=cuda, mapped=False)
        except OutOfDeviceMemory as problem:
            text = str(problem)
        seen.append(free(cuda))
    # After the first: CUDA itself gives pools back when memory is short.
    return {
        "pass": seen[-1] >= seen[0],
        "tries": len(seen),
        "lost_bytes": seen[0] - seen[-1],
        "text": text,
    }


def opened_and_closed(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """Open, run and close: once CUDA's own pools are warm, free memory stays the same."""
    seen = []
    for seed in range(OPENED):
        lane = ExecutionLane(engine, cuda=cuda, mapped=False)
        run(lane, fake.queries(1 + seed % 8, seed))
        lane.close()
        seen.append(free(cuda))
    return {
        "pass": seen[-1] == seen[WARM],
        "opened": OPENED,
        "lost_bytes_after_20": seen[WARM] - seen[-1],
        "lost_bytes_first_20": seen[0] - seen[WARM],
    }


def two_lanes(cuda: Cuda, engine: Engine) -> dict[str, Any]:
    """Two lanes in turn, as `stream()` uses them, against one: answers and times."""
    batch: Any = fake.queries(8, seed=0)
    lanes = [ExecutionLane(engine, cuda=cuda, mapped=False) for _ in range(2)]
    first = run(lanes[0], batch)
    same = bool(np.array_equal(run(lanes[1], batch), first))
    start = time.perf_counter()
    for _ in range(TURNS):
        run(lanes[0], batch)
    one = time.perf_counter() - start
    start = time.perf_counter()
    lanes[0].start(batch)
    for number in range(1, TURNS):
        lanes[number % 2].start(batch)
        same &= bool(np.array_equal(lanes[(number + 1) % 2].finish()["y"], first))
    lanes[1].finish()
    two = time.perf_counter() - start
    for lane in lanes:
        lane.close()
    return {
        "pass": same,
        "one_lane_us": round(one * 1e6 / TURNS, 1),
        "two_lanes_us": round(two * 1e6 / TURNS, 1),
    }
