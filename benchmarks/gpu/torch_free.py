"""The attention kernel without torch: a program for compute-sanitizer and ncu.

    python benchmarks/gpu/torch_free.py check
    python benchmarks/gpu/torch_free.py launch

`check` solves small problems, prints the error of each, and exits with 1 if one is wrong. `launch`
launches each kernel once at the sizes that are profiled.

Every map has its own allocation of exactly its size. So the sanitizer sees a read or a write past
its end.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.case import Case, HostMap, draw  # noqa: E402
from finedge.runtime.cuda.libcuda import LIBRARY  # noqa: E402
from finedge.runtime.trt.plugin.driver import Driver  # noqa: E402
from finedge.runtime.trt.plugin.launch import (  # noqa: E402
    HALF,
    INT8,
    SEPARATE,
    SHARED,
    AttentionShape,
    Map,
    MapLayout,
)
from finedge.runtime.trt.plugin.ready_attention import ReadyAttention  # noqa: E402

LIMIT = 1.5e-3  # of the largest value
LINEAR, CHW32 = ("LINEAR",) * 3, ("HWC8", "CHW32", "CHW32")
STEPS = (HALF, INT8, INT8)
# Few queries and images on many keys make splits.
CHECKS = (
    Case(49, 196, 64, 64, 2),
    Case(49, 196, 61, 61, 2),
    Case(17, 33, 128, 128),
    Case(196, 784, 256, 256),
    Case(49, 784, 512, 512),
    Case(49, 784, 512, 512, shared=True),
    Case(49, 196, 1024, 1024, 2, shared=True),
    Case(49, 196, 1000, 1000, 40, shared=True),
    Case(33, 65, 61, 61, 2, forms=LINEAR, form_out="LINEAR"),
    Case(33, 65, 64, 64, 2, forms=CHW32, kinds=STEPS),
    Case(33, 65, 96, 96, 2, forms=("HWC8", "LINEAR", "LINEAR"), kinds=STEPS, form_out="LINEAR"),
    Case(1, 1, 8, 8),
)
# What is profiled: a layer of CNL at 448 pixels, batch 32, by every kernel. The last is split and
# combined.
PROFILED = (
    *(Case(196, 3136, kernel.size, kernel.size, 32) for kernel in SEPARATE),
    *(Case(196, 3136, kernel.size, kernel.size, 32, shared=True) for kernel in SHARED),
    Case(196, 3136, 512, 512, 1, shared=True),
)


class Memory:
    """Allocations of the driver's API, freed together."""

    def __init__(self, driver: Driver, stack: ExitStack) -> None:
        self._driver, self._stack = driver, stack

    def room(self, size: int) -> int:
        """Allocate `size` bytes."""
        pointer = ctypes.c_void_p()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._stack.callback(self._driver.call, "cuMemFree_v2", pointer)
        return int(pointer.value or 0)

    def put(self, array: NDArray[Any]) -> int:
        """Copy an array to the device; return its address."""
        address = self.room(array.nbytes)
        source = ctypes.c_void_p(array.ctypes.data)
        self._driver.call(
            "cuMemcpyHtoD_v2", ctypes.c_void_p(address), source, ctypes.c_size_t(array.nbytes)
        )
        return address

    def get(self, address: int, array: NDArray[Any]) -> None:
        """Copy from the device into an array."""
        target = ctypes.c_void_p(array.ctypes.data)
        self._driver.call(
            "cuMemcpyDtoH_v2", target, ctypes.c_void_p(address), ctypes.c_size_t(array.nbytes)
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("check", "launch"))
    parser.add_argument("--library", default=LIBRARY)
    arguments = parser.parse_args()
    driver = Driver(arguments.library)
    context = ctypes.c_void_p()
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    driver.call("cuCtxSetCurrent", context)
    if arguments.what == "launch":
        for case in PROFILED:
            launch(driver, case)
        return 0
    worst = 0.0
    for case in CHECKS:
        error = check(driver, case)
        print(json.dumps({**asdict(case), "error": error}), flush=True)
        worst = max(worst, error)
    return int(worst > LIMIT)


def check(driver: Driver, case: Case) -> float:
    """Return the largest error of a problem as a share of the largest value.

    It is infinite where an element was not written.
    """
    maps = draw(case)
    with ExitStack() as stack:
        memory = Memory(driver, stack)
        at_q, at_k = memory.put(maps.q.memory), memory.put(maps.k.memory)
        at_v = at_k if case.shared else memory.put(maps.v.memory)
        at_y = memory.room(maps.y.memory.nbytes)
        views = [m.map() for m in (maps.q, maps.k, maps.v, maps.y)]
        run(driver, case, views=views, addresses=(at_q, at_k, at_v, at_y), memory=memory)
        read_back(memory, at_y, maps.y, channels=case.dv)
    return maps.error(scale=case.scale)


def launch(driver: Driver, case: Case) -> None:
    """Launch one problem once on random maps with neighbouring channels."""
    generator = np.random.default_rng(0)
    positions = (case.queries, case.keys, case.keys, case.queries)
    layouts = [MapLayout.of("HWC8", kind=HALF, channels=case.d, positions=n) for n in positions]
    with ExitStack() as stack:
        memory = Memory(driver, stack)
        q, k = (
            generator.standard_normal(case.batch * x.batch, dtype=np.float32).astype(np.float16)
            for x in layouts[:2]
        )
        at_q, at_k = memory.put(q), memory.put(k)
        addresses = (at_q, at_k, at_k if case.shared else memory.put(k), memory.room(q.nbytes))
        views = [layout.map() for layout in layouts]
        run(driver, case, views=views, addresses=addresses, memory=memory)


def run(
    driver: Driver, case: Case, *, views: Sequence[Map], addresses: Sequence[int], memory: Memory
) -> None:
    """Launch and wait; the addresses of the views are those of the device."""
    sizes = (case.queries, case.keys, case.d, case.dv, 1, case.batch, case.scale, 0)
    ready = ReadyAttention(driver, AttentionShape(*views, None, *sizes), shared=case.shared)
    room = memory.room(max(256, ready.plan.workspace_bytes))
    ready.launch(addresses, workspace=room, stream=0)
    driver.call("cuCtxSynchronize")


def read_back(memory: Memory, address: int, y: HostMap, *, channels: int) -> None:
    """Copy the answer to the host.

    Nothing wrote the padding between positions, and initcheck would report its copy.
    """
    if y.layout.channel != 1 or channels % 8 == 0:
        memory.get(address, y.memory)
        return
    for start in range(0, y.memory.size, y.layout.token):
        memory.get(address + 2 * start, y.memory[start : start + channels])


if __name__ == "__main__":
    sys.exit(main())
