"""Interleaved timing and its interval, on clocks and numbers that the test gives."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from finedge.runtime.variant.speed import MIN_BLOCKS, paired_speed
from finedge.runtime.variant.timing import PLAN, Interleaved, Timing, camera_frame

FALSE_CLAIMS = 0.01  # the share of intervals that may miss the truth
TRIALS = 3000


class Clock:
    """A clock that only queries move: `query(ms)` takes `ms`, times a noise of each call."""

    def __init__(self, *, noise=lambda: 1.0):
        self.seconds, self.noise, self.asked = 0.0, noise, []

    def __call__(self):
        return self.seconds

    def query(self, name, ms):
        def ask():
            self.asked.append(name)
            self.seconds += ms * self.noise() / 1e3

        return ask


def run(clock, plan=PLAN, **ms):
    queries = {name: clock.query(name, value) for name, value in ms.items()}
    return Interleaved(queries, plan, clock)()


def test_fewer_than_eight_blocks_show_nothing():
    assert paired_speed([2.0] * (MIN_BLOCKS - 1), [1.0] * (MIN_BLOCKS - 1)) is None


def test_of_eight_blocks_the_interval_holds_all():
    speed = paired_speed([8, 2, 3, 4, 5, 6, 7, 1], [1.0] * 8)
    assert (speed.low, speed.ratio, speed.high) == (1, 4.5, 8)
    assert not speed.is_faster
    assert not speed.is_settled


def test_one_disturbed_block_of_sixteen_changes_nothing():
    calm, disturbed = [2.0] * 16, [2.0] * 15 + [0.1]
    assert paired_speed(disturbed, [1.0] * 16) == paired_speed(calm, [1.0] * 16)


@pytest.mark.parametrize("blocks", [8, 16, 64])
def test_equal_variants_are_rarely_told_apart_whatever_the_noise(blocks):
    rng = np.random.default_rng(blocks)
    times = 5 + rng.pareto(1.5, (TRIALS, 2, blocks))  # heavy tails: a busy machine
    speeds = [paired_speed(a, b) for a, b in times]
    misses = np.mean([not s.low <= 1 <= s.high for s in speeds])
    assert misses <= FALSE_CLAIMS + 3 * np.sqrt(FALSE_CLAIMS / TRIALS)


def test_a_clear_case_ends_at_the_first_look():
    clock = Clock()
    timing = run(clock, fp32=2, int8=1)
    assert len(timing.ms["int8"]) == MIN_BLOCKS
    assert timing.speed("int8", of="fp32").ratio == pytest.approx(2)
    assert clock.asked.count("int8") == PLAN.warm_up + MIN_BLOCKS * PLAN.queries


def test_an_unclear_case_is_measured_to_the_last_look():
    noise = random.Random(0)
    timing = run(Clock(noise=lambda: noise.uniform(1, 3)), fp32=1, int8=1)
    assert len(timing.ms["int8"]) == PLAN.looks[-1]
    assert not timing.is_settled


class BusyMachine:
    """A machine whose wall time is noise, and whose CPU time is steady."""

    def __init__(self):
        self.cpu_s, self.wall = 0.0, Clock(noise=iter(random.Random(0).random, 2).__next__)

    def query(self, ms):
        disturbed = self.wall.query("", 100 * ms)

        def ask():
            self.cpu_s += ms / 1e3
            disturbed()

        return ask


@pytest.mark.parametrize(("int8_ms", "faster"), [(1.0, True), (1.8, False), (2.0, False)])
def test_on_a_busy_machine_cpu_time_decides(int8_ms, faster):
    machine = BusyMachine()
    queries = {"fp32": machine.query(2.0), "int8": machine.query(int8_ms)}
    timing = Interleaved(queries, PLAN, machine.wall, lambda: machine.cpu_s)()
    speed = timing.speed("int8", of="fp32")
    assert (speed.clock, speed.is_faster, speed.is_settled) == ("CPU time", faster, True)
    assert speed.ratio == pytest.approx(2.0 / int8_ms, rel=1e-3)


def test_time_runs_out_but_not_before_eight_blocks():
    noise = random.Random(0)
    plan = replace(PLAN, max_s=0.01)
    timing = run(Clock(noise=lambda: noise.uniform(1, 3)), plan, fp32=30, int8=30)
    assert len(timing.ms["int8"]) == MIN_BLOCKS


def test_a_slow_variant_is_asked_once_a_block():
    clock = Clock()
    run(clock, fp32=200, int8=10)
    assert clock.asked.count("fp32") == PLAN.warm_up + MIN_BLOCKS


def test_the_variants_take_turns_in_changing_order():
    clock = Clock()
    run(clock, fp32=2, int8=1)
    firsts = clock.asked[2 * PLAN.warm_up :: 2 * PLAN.queries]
    assert set(firsts) == {"fp32", "int8"}


def test_a_variant_that_loses_clearly_is_settled_too():
    assert Timing({"fp32": (1.0,) * 8, "int8": (2.0,) * 8}).is_settled


def test_the_frame_is_a_cameras():
    frame = camera_frame()
    assert (frame.shape, frame.dtype, frame.std() > 30) == ((720, 1280, 3), np.uint8, True)
