"""The attention kernel without torch: a program for compute-sanitizer and ncu.

    python benchmarks/gpu/torch_free.py check
    python benchmarks/gpu/torch_free.py launch

`check` solves small problems, prints the error of each, and exits with 1 if one is wrong. `launch`
launches each kernel once at the sizes that are profiled.

Every map has an allocation of its own, of its exact size, so that a read or a write past its end is
one that the sanitizer sees.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from finedge.ops import cross_layer_attention  # noqa: E402
from finedge.runtime.trt.plugin.cross_layer_attention import ReadyAttention  # noqa: E402
from finedge.runtime.trt.plugin.driver import LIBRARY, Driver  # noqa: E402
from finedge.runtime.trt.plugin.launch import HALF, INT8, AttentionShape, Map, MapLayout  # noqa: E402

LIMIT = 1.5e-3  # of the largest value
SCALE = 0.03  # of INT8
HWC8, LINEAR, CHW32 = ("HWC8", HALF), ("LINEAR", HALF), ("CHW32", INT8)
# queries, keys, channels, batch, shared, format of q, of k and v, and of y; few queries and images
# on many keys make splits
CHECKS: tuple[tuple[int, int, int, int, bool, Any, Any, Any], ...] = (
    (49, 196, 64, 2, False, HWC8, HWC8, HWC8),
    (49, 196, 61, 2, False, HWC8, HWC8, HWC8),
    (17, 33, 128, 1, False, HWC8, HWC8, HWC8),
    (196, 784, 256, 1, False, HWC8, HWC8, HWC8),
    (49, 784, 512, 1, False, HWC8, HWC8, HWC8),
    (49, 784, 512, 1, True, HWC8, HWC8, HWC8),
    (49, 196, 1024, 2, True, HWC8, HWC8, HWC8),
    (49, 196, 1000, 40, True, HWC8, HWC8, HWC8),
    (33, 65, 61, 2, False, LINEAR, LINEAR, LINEAR),
    (33, 65, 64, 2, False, HWC8, CHW32, HWC8),
    (33, 65, 96, 2, False, HWC8, ("LINEAR", INT8), LINEAR),
    (1, 1, 8, 1, False, HWC8, HWC8, HWC8),
)
# What is profiled: a layer of CNL at 448 pixels, batch 32, projected to 64 to 512 channels and
# absorbed; the last is split and combined.
PROFILED: tuple[tuple[int, int, int, int, bool], ...] = (
    (196, 3136, 64, 32, False),
    (196, 3136, 128, 32, False),
    (196, 3136, 256, 32, False),
    (196, 3136, 512, 32, False),
    (196, 3136, 512, 32, True),
    (196, 784, 1024, 32, True),
    (196, 3136, 512, 1, True),
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
        for profiled in PROFILED:
            launch(driver, *profiled)
        return 0
    errors = [check(driver, *sizes) for sizes in CHECKS]
    for sizes, error in zip(CHECKS, errors, strict=True):
        print(json.dumps({"sizes": sizes, "error": error}))
    return int(max(errors) > LIMIT)


def check(
    driver: Driver, queries: int, keys: int, d: int, batch: int, shared: bool, *formats: Any
) -> float:
    """Return the largest error of a problem as a share of the largest value.

    It is infinite where an element was not written.
    """
    form_q, form_k, form_y = formats
    generator = np.random.default_rng(0)
    with ExitStack() as stack:
        memory = Memory(driver, stack)
        q = _Host((batch, d, queries), form_q, generator)
        k = _Host((batch, d, keys), form_k, generator)
        v = k if shared else _Host((batch, d, keys), form_k, generator)
        y = _Host((batch, d, queries), form_y, None)
        addresses = [
            memory.put(q.memory),
            at := memory.put(k.memory),
            at if shared else memory.put(v.memory),
            memory.room(y.memory.nbytes),
        ]
        problem = AttentionShape(
            q.map(), k.map(), v.map(), y.map(), None, queries, keys, d, d, 1, batch, d**-0.5, 0
        )
        ready = ReadyAttention(driver, problem, shared=shared)
        ready.launch(
            addresses, workspace=memory.room(max(256, ready.plan.workspace_bytes)), stream=0
        )
        driver.call("cuCtxSynchronize")
        whole = np.empty_like(y.memory)
        if form_y == LINEAR or d % 8 == 0:
            memory.get(addresses[3], whole)
        else:  # nothing wrote the padding of y, and initcheck would report its copy
            for row in range(batch * queries):
                part = whole[row * y.layout.token : row * y.layout.token + d]
                memory.get(addresses[3] + row * y.layout.token * 2, part)
        exact = cross_layer_attention(*(m.exact() for m in (q, k, v)), scale=d**-0.5)[:, :, 0, :]
        difference = (
            np.abs(whole[y.index].astype(np.float64) - exact).max() / np.abs(v.exact()).max()
        )
        return float(np.nan_to_num(difference, nan=np.inf))


def launch(driver: Driver, queries: int, keys: int, d: int, batch: int, shared: bool) -> None:
    """Launch one problem once on random maps with neighbouring channels."""
    generator = np.random.default_rng(0)
    layouts = [
        MapLayout.of("HWC8", kind=HALF, channels=d, positions=n)
        for n in (queries, keys, keys, queries)
    ]
    with ExitStack() as stack:
        memory = Memory(driver, stack)
        q, k = (
            generator.standard_normal(batch * x.batch, dtype=np.float32).astype(np.float16)
            for x in layouts[:2]
        )
        at_q, at_k = memory.put(q), memory.put(k)
        addresses = (at_q, at_k, at_k if shared else memory.put(k), memory.room(q.nbytes))
        problem = AttentionShape(
            *(x.map() for x in layouts), None, queries, keys, d, d, 1, batch, d**-0.5, 0
        )
        ready = ReadyAttention(driver, problem, shared=shared)
        ready.launch(
            addresses, workspace=memory.room(max(256, ready.plan.workspace_bytes)), stream=0
        )
        driver.call("cuCtxSynchronize")


class _Host:
    """A map [B, C, N] in a TensorFormat, on the host; NaN or 127 where no element lies."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        form: tuple[str, int],
        generator: np.random.Generator | None,
    ) -> None:
        batch, channels, positions = shape
        self.kind = form[1]
        self.layout = MapLayout.of(form[0], kind=self.kind, channels=channels, positions=positions)
        c, t = np.meshgrid(np.arange(channels), np.arange(positions), indexing="ij")
        inside = t * self.layout.token + c // 32 * self.layout.group + c % 32 * self.layout.channel
        self.index = np.arange(batch)[:, None, None] * self.layout.batch + inside
        dtype, poison = (np.int8, 127) if self.kind == INT8 else (np.float16, np.nan)
        self.memory = np.full(batch * self.layout.batch, poison, dtype)
        if generator is not None:
            values = generator.standard_normal(shape)
            whole = self.kind == INT8
            self.memory[self.index] = (
                np.clip(np.rint(values / SCALE), -128, 127) if whole else values
            )

    def map(self) -> Map:
        return self.layout.map(scale=SCALE if self.kind == INT8 else 1.0)

    def exact(self) -> NDArray[np.float64]:
        values = self.memory[self.index]
        if self.kind == INT8:
            values = (values.astype(np.float32) * np.float32(SCALE)).astype(np.float16)
        return values.astype(np.float64)[:, :, None, :]


if __name__ == "__main__":
    sys.exit(main())
