"""Upper bounds of the kernels' speed, from what the shim counts. Nothing here was measured.

A multiprocessor cannot be faster than its tensor cores and its shared memory. Over the tiles in the
middle of a launch:

    bound = clocks of the useful products at the GPU's peak / clocks of the busier of the two

`overlap` lets the two work at once over the whole tile. `phases` lets them work at once only
between two barriers, as one resident block does. Global memory, latency, the softmax and the launch
come on top of both. `python -m tests.runtime.trt.plugin.bounds` prints the table of
`benchmarks/gpu/README.md`; with `--json` it prints all numbers, one line for each kernel.
"""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from finedge.runtime.trt.plugin.launch import SEPARATE, SHARED, Kernel
from tests.runtime.trt.plugin.attention import Case, answer, opened
from tests.runtime.trt.plugin.conftest import build_host

PRODUCT = 16 * 8 * 16  # multiplications of an mma.m16n8k16
WAYS = ("overlap", "phases")
COLUMNS = (("Orin", 32), ("Orin", 196), ("Orin", 49), ("H100", 196))  # of the page's table


@dataclass(frozen=True)
class Gpu:
    """Multiplications that a multiprocessor's tensor cores do in a clock, fp16 with fp32 sums.

    `peak` is the vendor's dense rate, `reachable` what mma.sync can have of it. Shared memory moves
    128 bytes a clock in both.
    """

    name: str
    peak: int
    reachable: float


# Orin: 85 dense fp16 TFLOP/s at INT8's half, 16 multiprocessors, 1.3 GHz, as A100's 1024 a clock.
ORIN = Gpu("Orin", 1024, 1.0)
# H100 SXM: 989 TFLOP/s over 132 multiprocessors at 1.83 GHz. mma.sync reaches 62 % of it; only
# wgmma reaches more (Luo et al., arXiv 2402.13499 and 2501.12084).
H100 = Gpu("H100", 2048, 0.62)


class Counts(ctypes.Structure):
    """Mirrors `simt::Counts` of counter.h: wavefronts, products, bytes of global memory."""

    _fields_ = [
        (name, ctypes.c_longlong)
        for name in (
            "matrix",
            "load",
            "store",
            "copy",
            "conflicts",
            "products",
            "read",
            "written",
        )
    ]


@dataclass(frozen=True)
class Cost:
    """What one tile of a block costs, between two barriers or in all.

    Wavefronts by ldmatrix, loads, stores and cp.async, and bank conflicts among them;
    mma operations; bytes of global memory.
    """

    matrix: float
    load: float
    store: float
    copy: float
    conflicts: float
    products: float
    read: float
    written: float

    @property
    def wavefronts(self) -> float:
        return self.matrix + self.load + self.store + self.copy

    def clocks(self, gpu: Gpu) -> float:
        return max(self.products * PRODUCT / (gpu.peak * gpu.reachable), self.wavefronts)


def intervals(library: ctypes.CDLL, case: Case) -> list[Cost]:
    """Run a case in one go and return its costs from each barrier to the next."""
    library.count(1)
    answer(library, case)
    room = (Counts * 4096)()
    count = library.counts(room, len(room))
    library.count(0)
    assert count <= len(room)
    return [Cost(*(getattr(c, field.name) for field in fields(Cost))) for c in room[:count]]


@dataclass(frozen=True)
class Tile:
    """One tile of keys of one block with `queries` queries, in the middle of a launch."""

    kernel: Kernel
    queries: int
    phases: tuple[Cost, ...]

    @classmethod
    @functools.cache
    def of(cls, library: ctypes.CDLL, kernel: Kernel, queries: int) -> Tile:
        """Count the second of four tiles: what four tiles add to three is one, but an end too."""
        case = Case(queries, 4 * kernel.keys, kernel.size, kernel.size, shared=kernel in SHARED)
        counted = intervals(library, case)
        first = len(counted) - 1 - 3 * 4  # barriers before the loop
        return cls(kernel, queries, tuple(counted[first + 3 : first + 6]))

    @property
    def total(self) -> Cost:
        return Cost(*(sum(getattr(c, f.name) for c in self.phases) for f in fields(Cost)))

    @property
    def useful(self) -> float:
        """Multiplications that the result needs."""
        return 2 * self.queries * self.kernel.keys * self.kernel.size

    def clocks(self, gpu: Gpu, *, overlap: bool) -> float:
        return self.total.clocks(gpu) if overlap else sum(c.clocks(gpu) for c in self.phases)


def bound(library: ctypes.CDLL, kernel: Kernel, queries: int, *, gpu: Gpu, overlap: bool) -> float:
    """Return the bound of all blocks of one image, as a part of the GPU's peak."""
    whole, rest = divmod(queries, kernel.queries)
    blocks = [(whole, kernel.queries)] + [(1, rest)] * (rest > 0)
    tiles = [(count, Tile.of(library, kernel, size)) for count, size in blocks if count]
    clocks = sum(count * tile.clocks(gpu, overlap=overlap) for count, tile in tiles)
    return sum(count * tile.useful for count, tile in tiles) / gpu.peak / clocks


def row(library: ctypes.CDLL, kernel: Kernel) -> dict[str, object]:
    """Return the numbers of a kernel: a full tile, and bounds in percent."""
    tile = Tile.of(library, kernel, kernel.queries)
    bounds = {
        f"{gpu.name} {name}, {queries} queries": round(
            100 * bound(library, kernel, queries, gpu=gpu, overlap=name == "overlap"), 1
        )
        for gpu in (ORIN, H100)
        for queries in (kernel.queries, 196, 49)
        for name in WAYS
    }
    return {"kernel": kernel.name, **asdict(tile.total), **bounds}


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the Markdown table: percent of the peak for 32, 196 and 49 queries."""
    head = [f"{gpu}, {n} queries" for gpu, n in COLUMNS]
    lines = [f"| kernel | {' | '.join(head)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for row in rows:
        pairs = [[row[f"{gpu} {name}, {n} queries"] for name in WAYS] for gpu, n in COLUMNS]
        cells = [f"{both} / {apart} %" for both, apart in pairs]
        lines.append(f"| `{row['kernel']}` | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        built = opened(build_host(Path(folder) / "kernel.so"))
    counted = [row(built, each) for each in (*SEPARATE, *SHARED)]
    print("\n".join(map(json.dumps, counted) if "--json" in sys.argv else table(counted)))
