"""Times the variants interleaved: each block asks every variant, in a shuffled order."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finedge.golden import synthetic_frame
from finedge.progress import progress_bar
from finedge.runtime.variant.speed import MIN_BLOCKS, Speed, paired_speed

HEIGHT, WIDTH = 720, 1280  # a usual camera's frame
Query = Callable[[], object]


@dataclass(frozen=True)
class QueryTime:
    """How long a query took."""

    wall_ms: float
    cpu_ms: float


Blocks = Mapping[str, Sequence[QueryTime]]


@dataclass(frozen=True)
class Plan:
    """For how long the variants are timed.

    Attributes:
        warm_up: queries of each variant that are not recorded: the first ones allocate memory.
        queries: queries of a variant in a block. The fastest is the block's time: other processes
            only ever add to it.
        slow_ms: a variant that takes longer is asked once a block.
        looks: after so many blocks the check ends if every comparison is settled. Clear cases end
            at the first look. At 99 % confidence each, four looks are wrong in at most 4 % of the
            cases without a difference.
        max_s: no block begins after so many seconds, except the first 8.
    """

    warm_up: int = 3
    queries: int = 3
    slow_ms: float = 50.0
    looks: tuple[int, ...] = (MIN_BLOCKS, 16, 32, 64)
    max_s: float = 3.0


PLAN = Plan()


@dataclass(frozen=True)
class Timing:
    """The times of each variant in milliseconds a frame, one for each block.

    Attributes:
        ms: wall times by variant.
        cpu_ms: the CPU times of the same blocks; empty where a GPU computes.
    """

    ms: Mapping[str, tuple[float, ...]]
    cpu_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def medians_ms(self) -> dict[str, float]:
        """The median of each variant."""
        return {name: round(statistics.median(times), 4) for name, times in self.ms.items()}

    def speed(self, variant: str, *, of: str) -> Speed | None:
        """Return how many times as fast `variant` is as the variant `of`.

        Where the wall time does not settle that, the CPU time may: on a busy machine the wall time
        is mostly the time of other processes.
        """
        wall = paired_speed(self.ms[of], self.ms[variant])
        if wall is None or wall.is_settled or not self.cpu_ms:
            return wall
        cpu = paired_speed(self.cpu_ms[of], self.cpu_ms[variant], clock="CPU time")
        return cpu if cpu is not None and cpu.is_settled else wall

    @property
    def is_settled(self) -> bool:
        """Whether it is clear for each pair which of the two is faster, or that none is."""
        pairs = itertools.combinations(self.ms, 2)
        speeds = [self.speed(second, of=first) for first, second in pairs]
        return all(speed is not None and speed.is_settled for speed in speeds)


@dataclass
class Interleaved:
    """Times queries by variant.

    Args:
        queries: what answers one frame, by variant.
        plan: for how long.
        clock: returns seconds; tests give their own.
        cpu_clock: returns the CPU time of this process in seconds; None where a GPU computes.
        shuffle: the order within the blocks.
    """

    queries: Mapping[str, Query]
    plan: Plan = PLAN
    clock: Callable[[], float] = time.perf_counter
    cpu_clock: Callable[[], float] | None = None
    shuffle: random.Random = field(default_factory=lambda: random.Random(0))

    def __call__(self) -> Timing:
        """Warm up, then time block after block until every comparison is settled."""
        blocks: dict[str, list[QueryTime]] = {name: [] for name in self.queries}
        start = self.clock()
        with progress_bar("which variant is faster here", self.plan.looks[-1]) as advance:
            counts = {name: self._warm_up(query) for name, query in self.queries.items()}
            for block in range(1, self.plan.looks[-1] + 1):
                for name in self._order():
                    blocks[name].append(self._block(self.queries[name], counts[name]))
                advance(1)
                if self._ends(block, blocks, seconds=self.clock() - start):
                    break
        return self._timing(blocks)

    def _ends(self, block: int, blocks: Blocks, *, seconds: float) -> bool:
        if block < MIN_BLOCKS:
            return False
        is_look = block in self.plan.looks
        return seconds >= self.plan.max_s or (is_look and self._timing(blocks).is_settled)

    def _order(self) -> list[str]:
        return self.shuffle.sample(list(self.queries), len(self.queries))

    def _warm_up(self, query: Query) -> int:
        """Return how many queries a block of this variant has."""
        last = [self._time(query) for _ in range(self.plan.warm_up)][-1]
        return 1 if last.wall_ms > self.plan.slow_ms else self.plan.queries

    def _block(self, query: Query, count: int) -> QueryTime:
        times = [self._time(query) for _ in range(count)]
        return QueryTime(min(t.wall_ms for t in times), min(t.cpu_ms for t in times))

    def _time(self, query: Query) -> QueryTime:
        cpu_clock = self.cpu_clock or _no_clock
        cpu_start, start = cpu_clock(), self.clock()
        query()
        wall_s, cpu_s = self.clock() - start, cpu_clock() - cpu_start
        return QueryTime(1e3 * wall_s, 1e3 * cpu_s)

    def _timing(self, blocks: Blocks) -> Timing:
        wall = {name: tuple(t.wall_ms for t in times) for name, times in blocks.items()}
        cpu = {name: tuple(t.cpu_ms for t in times) for name, times in blocks.items()}
        return Timing(wall, cpu if self.cpu_clock else {})


def _no_clock() -> float:
    return 0.0


def camera_frame() -> NDArray[np.uint8]:
    """Return a frame to measure with: uint8 [720, 1280, 3], the golden picture repeated."""
    tiles: NDArray[np.uint8] = np.tile(synthetic_frame(), (2, 2, 1))[:HEIGHT, :WIDTH]
    return np.ascontiguousarray(tiles)
