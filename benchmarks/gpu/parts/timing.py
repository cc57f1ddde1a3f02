"""The attention kernel against what torch offers for the same maps, in CUDA graphs, contenders in turn.

All read the same token-major float16 maps. Where they fit, the maps stay in the L2 cache: in a network the layer before has just written them.
A row holds medians and ranges in microseconds, the clocks, and the floor: the larger of the time that this GPU takes for the operations at the
rate of a large product, and for the bytes (each map once) at the rate of a large copy, both measured by this part.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.device import NO_GPU, as_graph, clocks, milliseconds, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.problems import GUARD, Attention, Case, Placed
from finedge.runtime.plugins.driver import LIBRARY, Driver
from finedge.runtime.plugins.kernels.make import SOURCE
from finedge.runtime.plugins.kernels.nvrtc import as_json, usage

ROUNDS = 15
GRAPH_MS = 1.0  # what one graph takes about, so that the clock's own cost does not count
BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
# What CNL asks for on ResNet-50: (queries, keys), then channels and whether keys are the values, then batch.
GRIDS = {"224 L4<-L3": (49, 196), "224 L4<-L2": (49, 784), "448 L4<-L3": (196, 784), "448 L4<-L2": (196, 3136)}
HEADS = ((64, False), (128, False), (256, False), (512, False), (512, True), (1024, True))
BATCHES = (1, 8, 32, 64)
# Those that torch.compile is asked for too: it takes seconds each.
COMPILED = {("448 L4<-L2", 512, True, 32), ("448 L4<-L2", 256, False, 32), ("448 L4<-L2", 512, True, 1), ("224 L4<-L3", 512, True, 1)}
TARGET = ("448 L4<-L2", 512, True, 32)  # the chain was to take 1.5 times as long as the kernel
Contenders = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Shape:
    """One row: a name of `GRIDS`, channels, whether keys are the values, batch."""

    grid: str
    channels: int
    shared: bool
    batch: int

    @property
    def case(self) -> Case:
        queries, keys = GRIDS[self.grid]
        return Case(queries, keys, self.channels, self.channels, self.batch, self.shared)

    def floor_us(self, flops: float, bytes_per_s: float) -> float:
        """Return the least microseconds at these rates."""
        queries, keys = GRIDS[self.grid]
        operations = 4 * self.batch * queries * keys * self.channels
        moved = 2 * self.batch * self.channels * (2 * queries + (1 if self.shared else 2) * keys)
        return 1e6 * max(operations / flops, moved / bytes_per_s)


SHAPES = tuple(Shape(grid, *head, batch) for batch in BATCHES for grid in GRIDS for head in HEADS)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    drivers = {"kernel": open_driver(LIBRARY)}
    with tempfile.TemporaryDirectory() as folder:
        row, built = built_here(Path(folder))
        yield row
        if built:
            drivers["kernel, nvcc"] = Driver(LIBRARY, folder=Path(folder))
        rates = measured_rates()
        yield {"what": "rates", **rates, "clocks": clocks()}
        for shape in sorted(SHAPES, key=lambda s: s != Shape(*TARGET)):
            yield timed(shape, drivers, rates)
            torch.cuda.empty_cache()


def built_here(folder: Path) -> tuple[Row, bool]:
    """Compile the kernel for this GPU alone; without a compiler the shipped image is timed alone."""
    major, minor = torch.cuda.get_device_capability()
    target = f"sm_{major}{minor}"
    command = ["nvcc", "-cubin", f"-arch={target}", "-std=c++17", "-Xptxas", "-v", "-o", str(folder / f"{SOURCE.stem}.{target}.cubin"), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError as error:
        return {"what": "nvcc", "reason": str(error)}, False
    used = as_json(usage(done.stdout + done.stderr))
    return {"what": "nvcc", "target": target, "exit_code": done.returncode, "usage": used}, done.returncode == 0


def measured_rates() -> dict[str, float]:
    """Return float16 operations a second of a large product, and bytes a second of a large copy (read and written)."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    product, copy = (statistics.median([milliseconds(call) for _ in range(12)][2:]) * 1e-3 for call in (lambda: a @ b, lambda: target.copy_(source)))
    return {"flops": 2 * 8192**3 / product, "bytes_per_s": 2 * (1 << 30) / copy}


def timed(shape: Shape, drivers: dict[str, Driver], rates: dict[str, float]) -> Row:
    """Time every contender on one shape; one that refuses the shape leaves its reason."""
    kernels = {name: Attention(shape.case, driver, device=torch.device("cuda")) for name, driver in drivers.items()}
    first = next(iter(kernels.values()))
    contenders: Contenders = {name: kernel.run for name, kernel in kernels.items()}
    contenders |= torch_contenders(first, compiled=(shape.grid, shape.channels, shape.shared, shape.batch) in COMPILED)
    graphs, refused = {}, {}
    for name, call in contenders.items():
        try:
            with torch.inference_mode():
                graphs[name] = graph_of(call)
        except Exception as error:  # a backend that has no kernel for this shape: any type
            refused[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            torch.cuda.synchronize()
    times = {name: [] for name in graphs}
    for _ in range(ROUNDS):
        for name, (graph, calls) in graphs.items():
            times[name].append(milliseconds(graph.replay) * 1e3 / calls)
    floor = shape.floor_us(**rates)
    return {
        "what": "shape",
        **asdict(shape),
        "kernel": first.case.kernel,
        "splits": first.splits,
        "us": {name: round(statistics.median(t), 2) for name, t in times.items()},
        "range_us": {name: [round(min(t), 2), round(max(t), 2)] for name, t in times.items()},
        "floor_us": round(floor, 2),
        "refused": refused,
        "error": _errors(first, contenders, graphs),
        "clocks": clocks(),
    }


def graph_of(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, int]:
    """Return a graph of as many calls as take about `GRAPH_MS`, and their number."""
    call()
    torch.cuda.synchronize()
    once = min(milliseconds(call) for _ in range(3))
    calls = max(1, min(100, round(GRAPH_MS / once)))
    return as_graph(call, times=calls), calls


def _errors(kernel: Attention, contenders: Contenders, graphs: dict[str, Any]) -> dict[str, float]:
    """Return the largest difference from float64 on the first image, as a share of the largest value."""
    exact = _first(kernel).exact()[0]
    largest = kernel.v.read()[0].abs().max().item()
    errors = {"kernel": (kernel.answer()[0].double() - exact).abs().max().item() / largest}
    for name in ("sdpa flash", "sdpa efficient", "triton", "chain"):
        if name in graphs:
            with suppress(Exception), torch.inference_mode():
                answer = contenders[name]()[0, 0].transpose(0, 1).double()
                errors[name] = (answer - exact).abs().max().item() / largest
    return errors


def _first(kernel: Attention) -> Any:
    """Return the first image of a problem, as far as `exact` looks at it."""

    @dataclass(frozen=True)
    class One:
        case: Case
        q: Any
        k: Any
        v: Any
        exact = Attention.exact

    def cut(placed: Placed) -> Placed:
        return Placed(placed.memory, placed.index[:1], placed.layout)

    return One(kernel.case, cut(kernel.q), cut(kernel.k), cut(kernel.v))


def torch_contenders(kernel: Attention, *, compiled: bool) -> Contenders:
    """Return what torch offers for the same maps, seen as [B, 1, positions, channels]."""
    q, k, v = (_tokens(m) for m in (kernel.q, kernel.k, kernel.v))
    scale = kernel.case.scale

    def chain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v

    def backend(which: SDPBackend) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with sdpa_kernel(which):
                return F.scaled_dot_product_attention(q, k, v, scale=scale)

        return call

    contenders: Contenders = {name: backend(which) for name, which in BACKENDS.items()}
    contenders["chain"] = lambda: chain(q, k, v)
    contenders["triton"] = triton_chosen(q, k, v, scale=scale)
    if compiled:
        torch._dynamo.reset()  # one code object would else be compiled for changing shapes, and at last not at all
        fast = torch.compile(chain, dynamic=False)
        contenders["chain compiled"] = lambda: fast(q, k, v)
    return contenders


def triton_chosen(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Tensor]:
    """Return the Triton kernel with the tile that is the fastest on these maps; the choice is made at the first call."""
    chosen: list[Callable[[], Tensor]] = []

    def call() -> Tensor:
        if not chosen:
            chosen.append(_fastest(q, k, v, scale=scale))
        return chosen[0]()

    return call


def _fastest(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Tensor]:
    """Try every tile for this head size; raise where none runs."""
    from benchmarks.gpu import triton_attention  # here: not every torch brings Triton

    times: list[tuple[float, int, Callable[[], Tensor]]] = []
    reasons = []
    for number, tile in enumerate(triton_attention.TILES.get(q.shape[-1], ())):
        call = partial(triton_attention.run, q, k, v, scale=scale, tile=tile)
        try:
            times.append((min([milliseconds(call) for _ in range(4)][1:]), number, call))
        except Exception as error:  # too much shared memory, or a compiler's limit: any type
            reasons.append(f"{tile}: {type(error).__name__}: {str(error)[:80]}")
    if not times:
        raise RuntimeError("; ".join(reasons) or f"no tile for {q.shape[-1]} channels")
    return min(times)[2]


def _tokens(placed: Placed) -> Tensor:
    batch, channels, positions = placed.index.shape
    return placed.memory[GUARD:-GUARD].view(batch, positions, channels).unsqueeze(1)
