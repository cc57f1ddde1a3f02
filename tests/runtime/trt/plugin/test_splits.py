"""Into how many ranges keys are split: properties of the model, and times measured on an H200.

`python -m tests.runtime.trt.plugin.test_splits` prints both tables.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from finedge.runtime.trt.plugin.launch import kernel_for, plan
from finedge.runtime.trt.plugin.splits import (
    MAX_SPLITS,
    MAX_WORKSPACE,
    Workload,
    best_splits,
    max_splits,
    row_bytes,
)

ROOT = Path(__file__).parents[4]
RECORDED = ROOT / "benchmarks/results/gpu/h200-second.jsonl"
H200 = 132  # multiprocessors
# The kernel of the recorded times had this tile; a later one is planned by its own.
QUERIES, KEYS = 16, 32
# Queries and keys; benchmarks/gpu/shapes.py has the names.
GRIDS = {"224 L4<-L2": (49, 784), "448 L4<-L3": (196, 784), "448 L4<-L2": (196, 3136)}
# (channels, one map): blocks that fitted a multiprocessor of the H200, from ncu's waves.
FITTED = {
    (64, False): 8,
    (128, False): 7,
    (256, False): 4,
    (512, False): 2,
    (512, True): 3,
    (1024, True): 2,
}


@dataclass(frozen=True)
class Measured:
    """One shape on the H200: microseconds by number of splits, and what was planned then."""

    grid: str
    channels: int
    shared: bool
    batch: int
    planned: int
    us: dict[int, float]

    @classmethod
    def of(cls, row):
        us = {int(splits): time for splits, time in row["us"].items()}
        names = ("grid", "channels", "shared", "batch", "planned")
        return cls(**{name: row[name] for name in names}, us=us)

    @cached_property
    def work(self):
        queries, keys = GRIDS[self.grid]
        return Workload(
            blocks=-(-queries // QUERIES) * self.batch,
            tiles=-(-keys // KEYS),
            tile_bytes=2 * (1 if self.shared else 2) * KEYS * self.channels,
            rows=queries * self.batch,
            dv=self.channels,
            processors=H200,
            resident=FITTED[self.channels, self.shared],
        )

    def time(self, splits):
        """Return the measured time, or one that is not less where that number was not measured.

        A larger number with ranges as long does the same work and starts some blocks in vain.
        Where there is none, the slower of the two neighbours counts.
        """
        if splits in self.us:
            return self.us[splits]
        length = -(-self.work.tiles // splits)
        larger = [n for n in self.us if n > splits]
        alike = [self.us[n] for n in larger if -(-self.work.tiles // n) == length]
        neighbours = (max(n for n in self.us if n < splits), min(larger))
        return min(alike) if alike else max(self.us[n] for n in neighbours)

    def ratio(self, splits):
        """Return the time as a share of the best measured one."""
        return self.time(splits) / min(self.us.values())


def measured():
    rows = (json.loads(line) for line in RECORDED.read_text().splitlines())
    return [Measured.of(row) for row in rows if row["part"] == "splits" and "us" in row]


def within_measured(shape):
    """Return the number that the model takes among those up to the largest measured one."""
    numbers = {
        -(-shape.work.tiles // -(-shape.work.tiles // n)) for n in range(1, max(shape.us) + 1)
    }
    room = max_splits(tiles=shape.work.tiles, rows=shape.work.rows, dv=shape.work.dv)
    return min(sorted(n for n in numbers if n <= room), key=shape.work.nanoseconds)


def test_the_planned_number_is_near_the_best_measured_one():
    """Before this model the plan took 1.16 times the best time in the mean, 2.39 at most."""
    shapes = measured()
    assert len(shapes) == 72
    before = [shape.ratio(shape.planned) for shape in shapes]
    after = [shape.ratio(best_splits(shape.work)) for shape in shapes]
    assert (sum(before) / 72, max(before)) == pytest.approx((1.163, 2.394), abs=1e-3)
    assert sum(after) / 72 < 1.02
    assert max(after) < 1.17


def test_no_number_of_the_model_is_larger_than_those_measured():
    assert all(best_splits(shape.work) == within_measured(shape) for shape in measured())


WORK = Workload(
    blocks=13,
    tiles=98,
    tile_bytes=2 * 32 * 512,
    rows=196,
    dv=512,
    processors=8,
    resident=3,
)


def scaled(work, batch):
    return replace(work, blocks=work.blocks * batch, rows=work.rows * batch)


@pytest.mark.parametrize("batch", [1, 3, 8, 32, 64])
@pytest.mark.parametrize("resident", [1, 2, 3, 4, 8])
def test_more_multiprocessors_never_take_longer(batch, resident):
    work = replace(scaled(WORK, batch), resident=resident)
    times = [replace(work, processors=p) for p in (1, 2, 4, 8, 14, 16, 20, 46, 132, 192)]
    times = [w.nanoseconds(best_splits(w)) for w in times]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("processors", [8, 16, 132])
def test_more_room_on_a_multiprocessor_never_takes_longer(processors):
    works = [replace(scaled(WORK, 8), processors=processors, resident=r) for r in range(1, 17)]
    times = [w.nanoseconds(best_splits(w)) for w in works]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("processors", [8, 16, 132])
def test_more_images_never_take_less_time(processors):
    works = [scaled(replace(WORK, processors=processors), batch) for batch in range(1, 33)]
    times = [w.nanoseconds(best_splits(w)) for w in works]
    assert times == sorted(times)


def test_a_full_gpu_splits_nothing_and_an_empty_one_does():
    assert best_splits(scaled(WORK, 64)) == 1
    assert best_splits(replace(WORK, processors=132)) > 10


def test_no_more_ranges_than_the_workspace_holds():
    work = replace(scaled(WORK, 32), processors=10_000)
    assert best_splits(work) * work.rows * row_bytes(512) <= MAX_WORKSPACE
    assert max_splits(tiles=1000, rows=1, dv=1) == MAX_SPLITS
    assert max_splits(tiles=7, rows=1, dv=1) == 7
    assert max_splits(tiles=7, rows=1 << 30, dv=1024) == 1


def test_a_lone_round_is_the_unit_of_the_model():
    """13 blocks on 8 multiprocessors, 3 fit one: the busiest has two, which take 5/4 of one."""
    tile_ns = 1000 + WORK.tile_bytes // 16
    assert WORK.nanoseconds(1) == 98 * tile_ns * 5 // 4
    assert replace(WORK, resident=1).nanoseconds(1) == 98 * tile_ns * 2


def _print_tables():
    print("queries x keys, d, maps, batch   planned before   now   best   ratio before   now")
    for s in measured():
        now, best = best_splits(s.work), min(s.us, key=s.us.get)
        head = f"{s.grid:>10} {s.channels:5} {2 - s.shared} {s.batch:3}"
        print(
            f"{head} {s.planned:4} {now:4} {best:4} {s.ratio(s.planned):6.2f} {s.ratio(now):6.2f}"
        )
    print(
        "splits on Orin Nano (8), AGX Orin (16), H200 (132), with the residency of the H200 x 0.7"
    )
    for queries, keys in ((49, 196), (49, 784), (196, 784), (196, 3136)):
        for d, shared in FITTED:
            for batch in (1, 8, 32):
                head = {"d": d, "dv": d, "shared": shared, "batch": batch}
                resident = math.ceil(kernel_for(d=d, dv=d, shared=shared).resident * 0.7)
                plans = [
                    plan(queries=queries, keys=keys, **head, processors=p, resident=resident)
                    for p in (8, 16, 132)
                ]
                print(queries, keys, d, 2 - shared, batch, resident, [p.splits for p in plans])


if __name__ == "__main__":
    _print_tables()
