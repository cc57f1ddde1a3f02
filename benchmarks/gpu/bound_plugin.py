"""Drive our Python plugin through one version of TensorRT's bindings: bound_plugin.py FOLDER.

FOLDER holds NVIDIA's package `tensorrt_bindings` and a libnvinfer of ours next to its
`tensorrt.so`. This libnvinfer has nothing but a plugin registry. Its `drive` calls a plugin in the
order of a builder and a runtime.
One JSON object a line. A process imports one version only, so that each has a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.case import Case  # noqa: E402
from benchmarks.gpu.device import device, open_driver  # noqa: E402
from benchmarks.gpu.problems import GUARD, Attention  # noqa: E402
from benchmarks.gpu.results import Row  # noqa: E402
from finedge.runtime.cuda.libcuda import LIBRARY  # noqa: E402
from finedge.runtime.trt.plugin.register import register  # noqa: E402

SIDES = (7, 14)  # of the query and the key grid
LIMIT = 1.5e-3  # of the largest value
REPLAYS = 1000
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int)


@dataclass(frozen=True)
class Bound:
    """TensorRT's module and the library that drives a plugin."""

    trt: Any
    library: ctypes.CDLL

    def drive(self, attention: Attention, stream: int) -> int:
        """Make a plugin and enqueue it once; return how many steps failed.

        It runs inside a bound function, as a builder's callbacks do: pybind may make temporaries
        only there.
        """
        failed: list[int] = []
        case = attention.case
        maps = [
            m.memory.data_ptr() + 2 * GUARD
            for m in (attention.q, attention.k, attention.v, attention.y)
        ]
        workspace = attention.workspace.data_ptr() + GUARD
        arguments = (*maps, workspace, case.batch, case.d, *SIDES, case.scale, stream)

        def drive() -> int:
            failed.append(self.library.drive(*arguments))
            return 0

        inside = CALLBACK(drive)
        self.library.arm(inside)
        try:
            self.trt.get_plugin_registry().load_library("drive")
        except Exception as error:  # the stand-in returns no library
            print(type(error).__name__, error, file=sys.stderr)
        return failed[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--library", default=LIBRARY, help="the CUDA driver, or a stand-in")
    arguments = parser.parse_args()
    for row in rows(arguments.folder, arguments.library):
        print(json.dumps(row), flush=True)


def rows(folder: Path, library: str) -> Iterator[Row]:
    """Yield the tests; without a GPU, on a stand-in for the driver, those that capture nothing."""
    bound = opened(folder)
    driver = open_driver(library)
    register(bound.trt, library=library)
    case = Case(SIDES[0] ** 2, SIDES[1] ** 2, 256, 256, batch=2)
    attention = Attention(case, driver, device=device())
    version = {"version": bound.trt.__version__}
    has_gpu = torch.cuda.is_available()

    def plain() -> int:
        stream = torch.cuda.current_stream().cuda_stream if has_gpu else 0
        return bound.drive(attention, stream)

    yield {"test": "plain", **version, **answered(attention, plain)}
    if has_gpu:
        yield {"test": "captured", **version, **captured(bound, attention)}
        yield {"test": "cost of enqueue in Python", **version, "us": enqueue_us(attention)}


def opened(folder: Path) -> Bound:
    """Import the bindings and open the library beside them."""
    sys.path.insert(0, str(folder))
    trt = importlib.import_module("tensorrt_bindings")
    library = ctypes.CDLL(str(next(Path(str(trt.__file__)).parent.glob("libnvinfer.so.*"))))
    library.drive.argtypes = (
        [ctypes.c_void_p] * 5 + [ctypes.c_int] * 4 + [ctypes.c_float, ctypes.c_void_p]
    )
    return Bound(trt, library)


def answered(attention: Attention, work: Callable[[], int | None]) -> Row:
    """Poison the output, do the work, compare."""
    attention.y.memory[GUARD:-GUARD] = float("nan")
    failed = work()
    if attention.y.memory.is_cuda:
        torch.cuda.synchronize()
    difference = (attention.y.read().double() - attention.exact()).abs().max().item()
    error = difference / attention.v.read().abs().max().item()
    return {"failed_steps": failed, "error": error, "pass": not failed and error <= LIMIT}


def captured(bound: Bound, attention: Attention) -> Row:
    """Capture what a whole plugin's life enqueues, and replay it without Python."""
    stream, graph, failed = torch.cuda.Stream(), torch.cuda.CUDAGraph(), 0
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        failed = bound.drive(attention, torch.cuda.current_stream().cuda_stream)
    row = answered(attention, graph.replay)
    first = attention.y.read().clone()
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize()
    same = torch.equal(first, attention.y.read())
    return {
        **row,
        "failed_steps": failed,
        "replays": REPLAYS,
        "same": same,
        "pass": row["pass"] and not failed and same,
    }


def enqueue_us(attention: Attention) -> float:
    """Return the median microseconds that Python takes to record the launches."""
    times = []
    for _ in range(500):
        start = time.perf_counter()
        attention.run()
        times.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return round(statistics.median(times) * 1e6, 2)


if __name__ == "__main__":
    main()
