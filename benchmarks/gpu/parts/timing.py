"""The attention kernel against what torch offers for the same maps, in CUDA graphs, in turn.

All read the same token-major float16 maps. Where they fit, the maps stay in the L2 cache: in a
network the layer before has just written them. A row holds medians and ranges in microseconds, the
clocks, and the floor: the larger of the time that this GPU takes for the operations at the rate of
a large product, and for the bytes (each map once) at the rate of a large copy, both measured by
this part.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.gpu import candidates
from benchmarks.gpu.carried import Carried
from benchmarks.gpu.device import NO_GPU, as_graph, clocks, milliseconds, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.problems import Attention
from benchmarks.gpu.shapes import GRIDS, HEADS, Shape
from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import LIBRARY
from finedge.runtime.trt.plugin.driver import Driver
from finedge.runtime.trt.plugin.kernels.make import SOURCE

MACHINE_CODE = "kernel, machine code"
ROUNDS = 15
GRAPH_MS = 1.0  # what one graph takes about, so that the clock's own cost does not count
BATCHES = (1, 8, 30, 32, 64)  # 30 and 32: just below and above whole waves
TARGET = Shape("448 L4<-L2", 512, True, 32)  # where the chain was to take 1.5 times as long
# Those that torch.compile is asked for too. It takes seconds each, so that all but the target come
# last.
COMPILED = {
    TARGET,
    *(Shape(grid, 512, True, batch) for grid in GRIDS for batch in (1, 32)),
    *(Shape("448 L4<-L2", 256, False, batch) for batch in (1, 32)),
}
SHAPES = tuple(Shape(grid, *head, batch) for batch in BATCHES for grid in GRIDS for head in HEADS)
CHECKED = ("sdpa flash", "sdpa efficient", "triton", "chain")
Call = Callable[[], Any]
Graph = tuple[torch.cuda.CUDAGraph, int]  # and how many calls it makes


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    drivers = {"kernel": open_driver(LIBRARY)}
    row, built = built_for_this_gpu(request.carried)
    yield row
    drivers |= built
    rates = measured_rates()
    yield {"what": "rates", **rates, "clocks": clocks()}
    for shape in sorted(SHAPES, key=lambda s: (s != TARGET, s in COMPILED)):
        yield timed(shape, drivers, rates)
        torch.cuda.empty_cache()


def built_for_this_gpu(carried: Carried) -> tuple[Row, dict[str, Driver]]:
    """Return the driver that loads the carried machine code, and a row; none where it is absent."""
    major, minor = torch.cuda.get_device_capability()
    image = f"{SOURCE.stem}.sm_{major}{minor}.cubin"
    if carried.images is None or not (carried.images / image).is_file():
        return {"what": "image", "reason": f"no {image} in {carried.folder}"}, {}
    driver = Driver(LIBRARY, folder=carried.images)
    try:
        driver.kernels()
    except SystemProblem as problem:
        return {"what": "image", "image": image, "reason": str(problem)}, {}
    return {"what": "image", "image": image}, {MACHINE_CODE: driver}


def measured_rates() -> dict[str, float]:
    """Return float16 operations a second of a large product, bytes a second of a large copy."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    product, copy = (
        statistics.median([milliseconds(call) for _ in range(12)][2:]) * 1e-3
        for call in (lambda: a @ b, lambda: target.copy_(source))
    )
    return {"flops": 2 * 8192**3 / product, "bytes_per_s": 2 * (1 << 30) / copy}


def timed(shape: Shape, drivers: dict[str, Driver], rates: dict[str, float]) -> Row:
    """Time every candidate on one shape; one that refuses the shape leaves its reason."""
    device = torch.device("cuda")
    kernels = {name: Attention(shape.case, one, device=device) for name, one in drivers.items()}
    first = next(iter(kernels.values()))
    calls: dict[str, Call] = {name: kernel.run for name, kernel in kernels.items()}
    calls |= candidates.of_torch(first, compiled=shape in COMPILED)
    graphs, refused = captured(calls)
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(ROUNDS):
        for name, (graph, number) in graphs.items():
            times[name].append(milliseconds(graph.replay) * 1e3 / number)
    return {
        "what": "shape",
        **asdict(shape),
        "kernel": first.case.kernel,
        "splits": first.splits,
        "us": {name: round(statistics.median(t), 2) for name, t in times.items()},
        "range_us": {name: [round(min(t), 2), round(max(t), 2)] for name, t in times.items()},
        "floor_us": round(shape.floor_us(**rates), 2),
        "refused": refused,
        "error": errors(first, {name: calls[name] for name in CHECKED if name in graphs}),
        "clocks": clocks(),
    }


def captured(calls: dict[str, Call]) -> tuple[dict[str, Graph], dict[str, str]]:
    """Return the graphs of the calls that work, and why the others do not."""
    graphs, refused = {}, {}
    for name, call in calls.items():
        graph, reason = _tried(call)
        if graph:
            graphs[name] = graph
        else:
            refused[name] = reason
    return graphs, refused


def _tried(call: Call) -> tuple[Graph | None, str]:
    try:
        with torch.inference_mode():
            return graph_of(call), ""
    except Exception as error:  # a backend that has no kernel for this shape: any type
        torch.cuda.synchronize()
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"


def graph_of(call: Call) -> Graph:
    """Return a graph of as many calls as take about `GRAPH_MS`, and their number."""
    call()
    torch.cuda.synchronize()
    once = min(milliseconds(call) for _ in range(3))
    calls = max(1, min(100, round(GRAPH_MS / once)))
    return as_graph(call, times=calls), calls


@torch.inference_mode()
def errors(kernel: Attention, calls: dict[str, Call]) -> dict[str, float]:
    """Return the largest error on the first image, as a share of the largest value."""
    exact = kernel.exact(images=1)[0]
    largest = kernel.v.read()[0].abs().max().item()
    answers = {"kernel": kernel.answer()[0]}
    answers |= {name: call()[0, 0].transpose(0, 1) for name, call in calls.items()}
    return {n: (a.double() - exact).abs().max().item() / largest for n, a in answers.items()}
