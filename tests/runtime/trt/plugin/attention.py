"""Cases of cross-layer attention for a library of the kernels (`host_kernel`), and their errors.

The reference is numpy. `python -m tests.runtime.trt.plugin.attention LIBRARY.so NAME...` runs named
cases: that is how a process with AddressSanitizer runs them.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finedge.ops import cross_layer_attention
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    COMBINE_BLOCK,
    HALF,
    INT8,
    AttentionShape,
    Kernel,
    MapLayout,
    kernel_for,
)

ROOT = Path(__file__).parents[4]
FIRST, LAST, RANDOM = 0, 1, 2  # simt::Order
INT8_SCALE = 0.03
COMBINE_KERNEL = Kernel(COMBINE, 0, 1, 0, COMBINE_BLOCK[0], 0, 0, 0)


@dataclass(frozen=True)
class Case:
    """Sizes and formats; `forms` and `kinds` are of q, k and v.

    `gain` multiplies the queries: large ones make a softmax with one winner.
    """

    queries: int
    keys: int
    d: int
    dv: int
    batch: int = 1
    shared: bool = False
    splits: int = 1
    forms: tuple[str, str, str] = ("HWC8", "HWC8", "HWC8")
    kinds: tuple[int, int, int] = (HALF, HALF, HALF)
    form_out: str = "HWC8"
    gain: float = 1.0
    seed: int = 0


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


@dataclass
class Tensor:
    """`values` [B, C, N] laid out as TensorRT does; padding is NaN, or large numbers in INT8.

    These differ from key to key: what all scores of a query have in common shows nowhere.
    """

    values: np.ndarray
    form: str
    kind: int = HALF
    memory: np.ndarray = field(init=False)

    def __post_init__(self):
        batch, channels, positions = self.values.shape
        self.layout = MapLayout.of(
            self.form, kind=self.kind, channels=channels, positions=positions
        )
        c, t = np.meshgrid(np.arange(channels), np.arange(positions), indexing="ij")
        inside = t * self.layout.token + c // 32 * self.layout.group + c % 32 * self.layout.channel
        self.index = np.arange(batch)[:, None, None] * self.layout.batch + inside
        dtype, poison = (np.int8, [127, -128, 90]) if self.kind == INT8 else (np.float16, [np.nan])
        self.memory = np.resize(np.array(poison, dtype), batch * self.layout.batch)
        self.memory[self.index] = self.values

    def map(self):
        made = self.layout.map(scale=INT8_SCALE if self.kind == INT8 else 1.0)
        made.data = self.memory.ctypes.data
        return made

    def read(self):
        return self.memory[self.index]

    def exact(self):
        """What the kernel is to take these for: fp16, in float64, [B, C, 1, N]."""
        values = (
            (self.values.astype(np.float32) * np.float32(INT8_SCALE)).astype(np.float16)
            if self.kind == INT8
            else self.values
        )
        return values.astype(np.float64)[:, :, None, :]


def tensor(shape, *, form, kind, generator, gain=1.0):
    values = gain * generator.standard_normal(shape)
    return Tensor(
        np.clip(np.rint(values / INT8_SCALE), -128, 127).astype(np.int8)
        if kind == INT8
        else values.astype(np.float16),
        form,
        kind,
    )


def tensors(case):
    generator = np.random.default_rng(case.seed)
    q = tensor(
        (case.batch, case.d, case.queries),
        form=case.forms[0],
        kind=case.kinds[0],
        generator=generator,
        gain=case.gain,
    )
    k = tensor(
        (case.batch, case.d, case.keys), form=case.forms[1], kind=case.kinds[1], generator=generator
    )
    v = (
        k
        if case.shared
        else tensor(
            (case.batch, case.dv, case.keys),
            form=case.forms[2],
            kind=case.kinds[2],
            generator=generator,
        )
    )
    return (
        q,
        k,
        v,
        Tensor(np.full((case.batch, case.dv, case.queries), np.nan, np.float16), case.form_out),
    )


def answer(library, case):
    """Run the kernel of a case.

    Return y, the reference in float64 [B, dv, queries], and the partial results
    [B, splits, queries, dv + 2].
    """
    q, k, v, y = tensors(case)
    scale = case.d**-0.5
    partial = np.full((case.batch, case.splits, case.queries, case.dv + 2), np.nan, np.float32)
    numbers = (case.queries, case.keys, case.d, case.dv, case.splits, case.batch, scale, 0)
    problem = AttentionShape(q.map(), k.map(), v.map(), y.map(), partial.ctypes.data, *numbers)
    kernel = kernel_for(d=case.d, dv=case.dv, shared=case.shared)
    grid = (-(-case.queries // kernel.queries), case.splits, case.batch)
    launch(library, kernel, grid, problem=problem)
    if case.splits > 1:
        launch(library, COMBINE_KERNEL, (case.queries, 1, case.batch), problem=problem)
    return (
        y,
        cross_layer_attention(q.exact(), k.exact(), v.exact(), scale=scale)[:, :, 0, :],
        partial,
    )


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
