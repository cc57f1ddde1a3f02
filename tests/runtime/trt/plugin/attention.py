"""Cases of cross-layer attention for a library of the kernels (`host_kernel`), and their errors.

The reference is numpy. `python -m tests.runtime.trt.plugin.attention LIBRARY.so NAME...` runs named
cases: that is how a process with AddressSanitizer runs them.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

from benchmarks.gpu.case import Case, draw
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    COMBINE_BLOCK,
    HALF,
    INT8,
    AttentionShape,
    Kernel,
    kernel_for,
)

ROOT = Path(__file__).parents[4]
FIRST, LAST, RANDOM = 0, 1, 2  # simt::Order
COMBINE_KERNEL = Kernel(COMBINE, 0, 1, 0, COMBINE_BLOCK[0], 0, 0, 0)

# Small cases that together run every line of the kernel: full tiles of keys and a partial one at
# the end, blocks with one group of queries and with two, both forms, both widths of tile, channels
# in one slice and in several, splits. The mutants' cases have few keys, so that a wrong one counts.
PROBE = {
    "separate": Case(queries=37, keys=72, d=64, dv=61, gain=2.0),
    "shared": Case(queries=37, keys=72, d=264, dv=264, shared=True, gain=2.0),
    "medium": Case(queries=21, keys=72, d=200, dv=136, gain=2.0),
    "wide": Case(queries=21, keys=40, d=520, dv=520, shared=True, gain=2.0),
    "sliced": Case(queries=21, keys=72, d=264, dv=296, gain=2.0),
    "split": Case(queries=21, keys=72, d=64, dv=61, splits=3, batch=2),
    "padded": Case(queries=21, keys=72, d=61, dv=61),
    "grown": Case(queries=21, keys=104, d=64, dv=64, gain=20.0),
    "peaks": Case(queries=21, keys=72, d=64, dv=61, gain=300.0),
    "linear": Case(
        queries=21, keys=72, d=61, dv=64, forms=("LINEAR", "LINEAR", "LINEAR"), form_out="LINEAR"
    ),
    "linear_v": Case(queries=21, keys=72, d=64, dv=64, forms=("HWC8", "HWC8", "LINEAR")),
    "int8": Case(
        queries=21, keys=72, d=64, dv=64, forms=("HWC8", "CHW32", "CHW32"), kinds=(HALF, INT8, INT8)
    ),
    "int8_padded": Case(
        queries=21, keys=72, d=29, dv=29, forms=("CHW32",) * 3, kinds=(INT8, INT8, INT8)
    ),
}


def tensors(case):
    """Return the maps q, k, v and y, which is all NaN."""
    maps = draw(case)
    return maps.q, maps.k, maps.v, maps.y


def answer(library, case):
    """Run the kernel of a case; 0 splits are one.

    Return y, the reference in float64 [B, dv, queries], and the partial results
    [B, splits, queries, dv + 2].
    """
    maps, splits = draw(case), case.splits or 1
    partial = np.full((case.batch, splits, case.queries, case.dv + 2), np.nan, np.float32)
    numbers = (case.queries, case.keys, case.d, case.dv, splits, case.batch, case.scale, 0)
    views = (m.map() for m in (maps.q, maps.k, maps.v, maps.y))
    problem = AttentionShape(*views, partial.ctypes.data, *numbers)
    kernel = kernel_for(d=case.d, dv=case.dv, shared=case.shared)
    grid = (-(-case.queries // kernel.queries), splits, case.batch)
    launch(library, kernel, grid, problem=problem)
    if splits > 1:
        launch(library, COMBINE_KERNEL, (case.queries, 1, case.batch), problem=problem)
    return maps.y, maps.reference(scale=case.scale), partial


def launch(library, kernel, grid, *, problem):
    block = (kernel.threads, kernel.shared_bytes)
    failure = library.run(kernel.name.encode(), *grid, *block, ctypes.byref(problem))
    if failure:
        raise RuntimeError(f"{kernel.name}: the shim says {failure} (simt::Failure)")


def error(library, case):
    """The largest error relative to the largest value, as fp16 rounds; NaN counts as infinite."""
    y, expected, _ = answer(library, case)
    largest = np.abs(tensors(case)[2].exact()).max()
    return np.nan_to_num(np.abs(y.read().astype(np.float64) - expected) / largest, nan=np.inf).max()


def opened(path):
    library = ctypes.CDLL(str(path))
    library.order.argtypes = [ctypes.c_int, ctypes.c_ulonglong]
    return library


if __name__ == "__main__":
    for probe in sys.argv[2:]:
        print(error(opened(sys.argv[1]), PROBE[probe]))
