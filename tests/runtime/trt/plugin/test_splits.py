"""Into how many ranges keys are split: properties of the model, and times measured on an H200.

`python -m tests.runtime.trt.plugin.test_splits` prints both tables.
"""

import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from finedge.runtime.trt.plugin.image import FOLDER
from finedge.runtime.trt.plugin.launch import SEPARATE, SHARED, kernel_for, plan
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
# The kernel of the recorded times had this tile, and took 1 us and 16 bytes a nanosecond for it. A
# later kernel is planned by its own numbers.
QUERIES, KEYS, WAIT_NS, BYTES_PER_NS = 16, 32, 1000, 16
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
        tile_bytes = 2 * (1 if self.shared else 2) * KEYS * self.channels
        return Workload(
            blocks=-(-queries // QUERIES) * self.batch,
            tiles=-(-keys // KEYS),
            tile_ns=WAIT_NS + tile_bytes // BYTES_PER_NS,
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
    tile_ns=3000,
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
    assert WORK.nanoseconds(1) == 98 * 3000 * 5 // 4
    assert replace(WORK, resident=1).nanoseconds(1) == 98 * 3000 * 2


def fits_an_orin(kernel):
    """Return the blocks that fit a multiprocessor of sm_87, by the registers of its image.

    65,536 registers, which a thread takes by eights; 164 KB of shared memory, of which each block
    costs 1 KB more; 1,536 threads.
    """
    used = json.loads((FOLDER / "images.json").read_text())["sm_87"][kernel.name]["registers"]
    registers = 65536 // (-(-used // 8) * 8 * kernel.threads)
    return min(registers, 167936 // (kernel.shared_bytes + 1024), 1536 // kernel.threads)


@pytest.mark.parametrize("kernel", [*SEPARATE, *SHARED], ids=lambda kernel: kernel.name)
def test_a_kernel_fits_an_orin_and_no_better_than_it_says(kernel):
    assert 1 <= fits_an_orin(kernel) <= kernel.resident


def orin_plans():
    """Yield typical shapes and their plans on an Orin Nano and on an AGX Orin."""
    grids = ((49, 196), *GRIDS.values())
    for (queries, keys), (d, shared), batch in itertools.product(grids, FITTED, (1, 8, 32)):
        head = {"d": d, "dv": d, "shared": shared}
        shape = {"queries": queries, "keys": keys, **head, "batch": batch}
        resident = fits_an_orin(kernel_for(**head))
        yield shape, [plan(**shape, processors=p, resident=resident) for p in (8, 16)]


def test_an_orin_splits_one_image_and_hardly_a_batch():
    """At 448 pixels one image does not give an AGX Orin a block for each multiprocessor."""
    for shape, (nano, agx) in orin_plans():
        if shape["batch"] == 32:
            assert max(nano.splits, agx.splits) <= 5, shape
        if shape["batch"] == 1 and shape["keys"] == 3136:
            assert agx.splits > 1, shape
        assert max(nano.workspace_bytes, agx.workspace_bytes) <= 16 << 20, shape


def _print_tables():
    print("H200: grid, d, maps, batch | planned before, now, best | time as a share of the best's")
    for s in measured():
        now, best = best_splits(s.work), min(s.us, key=s.us.get)
        head = f"{s.grid:>10} {s.channels:5} {2 - s.shared} {s.batch:3} |"
        ratios = f"{s.ratio(s.planned):6.2f} {s.ratio(now):6.2f}"
        print(f"{head} {s.planned:3} {now:3} {best:3} | {ratios}")
    print("Orin: queries, keys, d, maps, batch | splits on a Nano (8), on an AGX (16)")
    for shape, launches in orin_plans():
        sizes = [shape[name] for name in ("queries", "keys", "d", "batch")]
        print(sizes, "one map" if shape["shared"] else "", [launch.splits for launch in launches])


if __name__ == "__main__":
    _print_tables()
