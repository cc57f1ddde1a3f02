"""Into how many ranges the keys of an attention are split: a model of the time, in integers.

More ranges give more blocks, so that fewer multiprocessors idle. But each range has partial results
that the combine kernel reads. `best_splits` takes the number that the model says is fastest:

    rounds = blocks of the busiest multiprocessor, `resident` at a time; r blocks together take
             (resident + r) / (resident + 1) of the time of one alone
    time   = rounds x tiles of a range x `tile_ns`
           + `COMBINE_NS` + splits x passes x `SPLIT_NS` + bytes / (processors x `BYTES_PER_NS`)

The second line only counts with more than one range. Nanoseconds are those of an H200; only their
ratios matter, for another clock changes them all.

The constants were fitted to 912 times on one H200 (72 shapes of the first kernel, part `splits` of
`benchmarks/results/gpu/h200-second.jsonl`). The planned number then takes 1.02 times the best
measured time in the mean and 1.16 times at most (`tests/runtime/trt/plugin/test_splits.py`, which
prints the tables). Two inputs must be right: one block more or less in `resident` would cost up to
1.6 times, and a third of the true `tile_ns` up to 1.8 times.

C++ repeats the model in `jetson/plugin/splits.h`; integers give both the same answer.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

# A combine block reads every split of its query, one after the other.
MAX_SPLITS = 32
# The most that partial results may take. The workspace is reserved for as long as an engine is
# loaded, also where no launch is split. 16 MiB would cost up to 1.39 times the best measured time.
MAX_WORKSPACE = 32 << 20
# What a multiprocessor moves of the partial results.
BYTES_PER_NS = 16
# The second launch, which waits for the last block of the first.
COMBINE_NS = 3000
# A split in the combine kernel: loads that wait for each other, in each pass over the channels.
SPLIT_NS, PASS_CHANNELS = 225, 256


@dataclass(frozen=True)
class Workload:
    """An attention on one GPU, whose keys are not split yet.

    Args:
        blocks: tiles of queries of all images.
        tiles: tiles of keys.
        tile_ns: time of a tile of keys, for a block alone on a multiprocessor.
        rows: queries of all images.
        dv: channels of the values.
        processors: multiprocessors of the GPU.
        resident: blocks of the kernel that fit one multiprocessor at a time.
    """

    blocks: int
    tiles: int
    tile_ns: int
    rows: int
    dv: int
    processors: int
    resident: int

    def nanoseconds(self, splits: int) -> int:
        """Return what the model says that `splits` ranges take."""
        attend = self._rounds(splits) * ceil_div(self.tiles, splits) * self.tile_ns
        attend //= self.resident + 1
        return attend + (self._combine(splits) if splits > 1 else 0)

    def _rounds(self, splits: int) -> int:
        """Return the rounds of the busiest multiprocessor, in 1 / (resident + 1)."""
        most = ceil_div(self.blocks * splits, self.processors)
        whole, rest = divmod(most, self.resident)
        return whole * 2 * self.resident + (self.resident + rest if rest else 0)

    def _combine(self, splits: int) -> int:
        passes = ceil_div(self.dv, PASS_CHANNELS)
        moved = 2 * splits * self.rows * row_bytes(self.dv)  # written, and read again
        move_ns = moved // (self.processors * BYTES_PER_NS)
        return COMBINE_NS + splits * passes * SPLIT_NS + move_ns


def best_splits(work: Workload) -> int:
    """Return the number of ranges with the least time; of equal ones the smallest.

    A range is ceil(tiles / splits) tiles, so no number is taken that would leave a range empty.
    """
    limit = max_splits(tiles=work.tiles, rows=work.rows, dv=work.dv)
    numbers = {ceil_div(work.tiles, ceil_div(work.tiles, n)) for n in range(1, limit + 1)}
    return min(sorted(numbers), key=work.nanoseconds)


def max_splits(*, tiles: int, rows: int, dv: int) -> int:
    """Return the largest number that is tried: the partial results fit `MAX_WORKSPACE`."""
    return max(1, min(tiles, MAX_SPLITS, MAX_WORKSPACE // (rows * row_bytes(dv))))


def row_bytes(dv: int) -> int:
    """Return the bytes of a query's partial result: `dv` values, the maximum, and the sum."""
    return (dv + 2) * ctypes.sizeof(ctypes.c_float)


def ceil_div(count: int, size: int) -> int:
    """Return `count / size`, rounded up."""
    return -(-count // size)
