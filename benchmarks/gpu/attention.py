"""The cross-layer attention kernel on a GPU: is it right, how long does it take, against what.

    python benchmarks/gpu/attention.py OUT.json [--small] [--library PATH]

One call runs everything. The shapes are those of CNL's responses on ResNet-50 at 224 and 448
pixels. Keys and values are projected to 256 channels, or absorbed (the raw map as both). Batch 1
runs inside a CUDA graph, and batch 32 without one.

The contenders are interleaved in rounds: the plugin's kernel, torch's scaled_dot_product_attention,
the chain matmul, softmax, matmul in float16, and that chain through torch.compile. All read the
same token-major maps. The roofline is measured on this GPU: a large float16 product and a large
copy.

It needs torch and numpy; finedge is taken from this checkout. On a machine without a GPU,
`--library` names a stand-in for the CUDA driver (tests/runtime/trt/plugin/host). Only correctness
is looked at there. The target is at batch 32, 448 pixels, absorbed from 512 channels: the chain
takes at least 1.5 times as long as the kernel.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from finedge.ops import cross_layer_attention  # noqa: E402
from finedge.runtime.trt.plugin.cross_layer_attention import ReadyAttention  # noqa: E402
from finedge.runtime.trt.plugin.driver import LIBRARY, Driver  # noqa: E402
from finedge.runtime.trt.plugin.launch import HALF, AttentionShape, MapLayout  # noqa: E402

ROUNDS = 30  # of every contender in turn
INSIDE = 20  # launches timed together, so that the clock's own cost does not count
TARGET = ("layer2 at 448, absorbed", 32)


@dataclass(frozen=True)
class Shape:
    """One response of CNL: a deep query grid, and a shallow key grid, with `channels` each.

    Where `shared` is true, the keys are the values too.
    """

    name: str
    query_side: int
    key_side: int
    channels: int
    shared: bool

    @property
    def positions(self) -> tuple[int, int]:
        """Number of queries and of keys."""
        return self.query_side**2, self.key_side**2

    def flops(self, batch: int) -> int:
        """Of both products."""
        return 4 * batch * prod(self.positions) * self.channels

    def bytes(self, batch: int) -> int:
        """Of the maps, each read or written once."""
        queries, keys = self.positions
        return 2 * batch * self.channels * (2 * queries + (1 if self.shared else 2) * keys)


SHAPES = tuple(
    Shape(
        f"{layer} at {size}, {'absorbed' if shared else 'projected'}",
        size // 32,
        size // stride,
        channels if shared else 256,
        shared,
    )
    for size in (224, 448)
    for layer, stride, channels in (("layer2", 8, 512), ("layer3", 16, 1024))
    for shared in (False, True)
)
SMALL = (Shape("small, projected", 3, 6, 64, False), Shape("small, absorbed", 2, 5, 512, True))


class PluginKernel:
    """The plugin's kernel on torch's buffers; the maps are channels_last, which is kHWC8."""

    def __init__(self, driver: Driver, shape: Shape, maps: tuple[torch.Tensor, ...]) -> None:
        self.out, c = torch.empty_like(maps[0]), shape.channels
        queries, keys = shape.positions
        layouts = [
            MapLayout.of("HWC8", kind=HALF, channels=c, positions=n).map()
            for n in (queries, keys, keys, queries)
        ]
        problem = AttentionShape(
            *layouts, None, queries, keys, c, c, 1, maps[0].shape[0], scale_of(shape), 0
        )
        self.ready = ReadyAttention(driver, problem, shared=shape.shared)
        self.workspace = torch.empty(
            self.ready.plan.workspace_bytes, dtype=torch.uint8, device=maps[0].device
        )
        self.addresses = [t.data_ptr() for t in (*maps, self.out)]

    def __call__(self) -> torch.Tensor:
        """Record the launches on torch's stream; return the output map."""
        stream = torch.cuda.current_stream().cuda_stream if self.out.is_cuda else 0
        self.ready.launch(self.addresses, workspace=self.workspace.data_ptr(), stream=stream)
        return self.out


def main() -> None:
    """Measure every shape and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="two tiny shapes")
    parser.add_argument("--library", default=LIBRARY, help="the CUDA driver")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.zeros(1, device=device)  # makes the context that the driver's calls use
    driver = Driver(arguments.library)
    if device.type == "cpu":
        retain_context(driver)
    peaks = measured_peaks() if device.type == "cuda" else None
    rows = [
        row(driver, shape, batch, device, peaks)
        for shape in (SMALL if arguments.small else SHAPES)
        for batch in ((1, 2) if arguments.small else (1, 32))
    ]
    result = {"device": about(driver, device), "peaks": peaks, "rows": rows, "target": target(rows)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def row(
    driver: Driver, shape: Shape, batch: int, device: torch.device, peaks: dict[str, float] | None
) -> dict[str, Any]:
    """Check one shape at one batch size and, on a GPU, time it."""
    maps = inputs(shape, batch, device)
    kernel = PluginKernel(driver, shape, maps)
    result: dict[str, Any] = {
        "shape": asdict(shape),
        "batch": batch,
        "plan": asdict(kernel.ready.plan),
        "max_abs": errors(kernel, shape, maps),
    }
    if peaks is None:
        return result
    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "kernel": kernel,
        **torch_contenders(shape, maps),
    }
    times = timed(contenders, in_graph=batch == 1)
    floor = max(shape.flops(batch) / peaks["flops"], shape.bytes(batch) / peaks["bytes"]) * 1e6
    medians = {name: statistics.median(samples) for name, samples in times.items()}
    return {
        **result,
        "us": medians,
        "samples_us": times,
        "floor_us": floor,
        "roofline_share": {name: floor / t for name, t in medians.items()},
    }


def inputs(shape: Shape, batch: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return q, k, v as float16 maps whose channels lie together."""
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(batch, shape.channels, side, side, generator=generator)
        for side in (shape.query_side, shape.key_side, shape.key_side)
    ]
    q, k, v = (
        m.to(device, torch.float16).contiguous(memory_format=torch.channels_last) for m in made
    )
    return q, k, k if shape.shared else v


def scale_of(shape: Shape) -> float:
    """1/sqrt(d), as in the paper."""
    return float(shape.channels**-0.5)


def tokens(maps: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Return [B, 1, positions, C] views."""
    return [m.flatten(2).transpose(1, 2).unsqueeze(1) for m in maps]


def torch_contenders(
    shape: Shape, maps: tuple[torch.Tensor, ...]
) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what torch offers for the same maps."""
    scale = scale_of(shape)

    def chain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v

    views, compiled = tokens(maps), torch.compile(chain)
    return {
        "sdpa": lambda: F.scaled_dot_product_attention(*views, scale=scale),
        "chain": lambda: chain(*views),
        "chain compiled": lambda: compiled(*views),
    }


def errors(kernel: PluginKernel, shape: Shape, maps: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Return the largest difference from float64 of the kernel and of torch's float16 attention.

    Only the first image is compared.
    """
    exact = cross_layer_attention(
        *(m[:1].double().cpu().numpy() for m in maps), scale=scale_of(shape)
    )
    output = kernel()[:1].double().cpu().numpy()
    sdpa = F.scaled_dot_product_attention(*(t[:1] for t in tokens(maps)), scale=scale_of(shape))
    as_map = (
        sdpa[:, 0]
        .transpose(1, 2)
        .reshape(1, shape.channels, shape.query_side, shape.query_side)
        .double()
        .cpu()
        .numpy()
    )
    return {
        "kernel": float(np.abs(output - exact).max()),
        "sdpa": float(np.abs(as_map - exact).max()),
    }


def timed(
    contenders: dict[str, Callable[[], torch.Tensor]], *, in_graph: bool
) -> dict[str, list[float]]:
    """Return microseconds a call, `ROUNDS` samples of each contender, taken in turn."""
    repeated = {name: repeat(call, in_graph=in_graph) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in repeated.items():
            times[name].append(milliseconds(call) * 1e3 / INSIDE)
    return times


def repeat(call: Callable[[], torch.Tensor], *, in_graph: bool) -> Callable[[], object]:
    """Return what makes `INSIDE` calls, warmed up; in a CUDA graph where asked."""

    def calls() -> None:
        for _ in range(INSIDE):
            call()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        calls()
    side.synchronize()
    if not in_graph:
        return calls
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    return graph.replay


def milliseconds(call: Callable[[], object]) -> float:
    """Time one call by CUDA events."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def measured_peaks() -> dict[str, float]:
    """Return what this GPU reaches: float16 operations a second in a product, and bytes a second.

    The bytes are those of a copy, read and written.
    """
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    b, c = (
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda"),
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda"),
    )
    product, copy = (min(sampled(call)) * 1e-3 for call in (lambda: a @ a, lambda: b.copy_(c)))
    return {"flops": 2 * 8192**3 / product, "bytes": 2 * (1 << 30) / copy}


def sampled(call: Callable[[], object]) -> Iterator[float]:
    """Yield ten timings in milliseconds, after a warm-up."""
    call()
    yield from (milliseconds(call) for _ in range(10))


def target(rows: list[dict[str, Any]]) -> dict[str, Any] | str:
    """Return how the kernel does on the shape that the target names."""
    target_row = next(
        (r for r in rows if (r["shape"]["name"], r["batch"]) == TARGET and "us" in r), None
    )
    if target_row is None:
        return "not run"
    times = target_row["us"]
    return {"shape": TARGET, "chain_over_kernel": times["chain"] / times["kernel"], "wanted": 1.5}


def about(driver: Driver, device: torch.device) -> dict[str, str]:
    """Return what ran this, and of which commit."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else "no GPU: a stand-in for the driver, correctness only"
    )
    image = driver.kernels().image.path.name
    return {
        "name": name,
        "image": image,
        "driver": str(driver.version),
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "unknown",
    }


def retain_context(driver: Driver) -> None:
    """Make a context where torch made none."""
    context = ctypes.c_void_p()
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    driver.call("cuCtxSetCurrent", context)


if __name__ == "__main__":
    main()
