"""The run: every lane gets a block in turn (A-B-C-A-B-C), so that drift of the machine meets all of them alike."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress

from finedge.errors import UsageError
from finedge.runtime.benchmark.modes import TOTAL, Lane
from finedge.runtime.environment import UNKNOWN, clocks_mhz, governor
from finedge.runtime.telemetry import Reader, Telemetry
from finedge.runtime.telemetry.nvml import SENSOR

BLOCK_S = 0.7
MIN_BLOCKS = 3
ENERGY_COUNTER = "NVML's energy counter of the GPU's board"
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Schedule:
    """Seconds of measuring and of warm-up for each lane, and the blocks that the measuring is cut into.

    `rewarm_s` at the start of each block is not recorded: the lane before it left its own weights in the caches.
    """

    duration_s: float
    warm_up_s: float
    blocks: int
    rewarm_s: float

    @property
    def block_s(self) -> float:
        """The recorded seconds of a block."""
        return self.duration_s / self.blocks


def schedule(duration: str) -> Schedule:
    """Plan a run: at least 3 blocks of at most 0.7 s, a warm-up of a fifth of the duration, at most 2 s."""
    seconds = parse_duration(duration)
    blocks = max(MIN_BLOCKS, math.ceil(seconds / BLOCK_S))
    return Schedule(seconds, min(2.0, seconds / 5), blocks, min(0.05, seconds / blocks / 10))


def parse_duration(text: str) -> float:
    """Return the seconds of `10s`, `500ms`, `2m`, `1h` or a bare number of seconds."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        seconds = float(number) * UNITS[text[len(number) :].strip() or "s"]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f"duration '{text}'", expected="a time such as 10s, 500ms or 2m")
    return seconds


def interleave(
    lanes: Sequence[Lane], plan: Schedule, *, reader: Reader | None = None
) -> bool | str:
    """Warm all lanes, then measure them block by block; return whether the machine throttled meanwhile, or "unknown".

    `reader` has the sensors; default: those of this machine.
    """
    reader = reader or Reader()
    with Progress(
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as progress:
        warm = progress.add_task("warm-up", total=len(lanes))
        for lane in lanes:
            lane.warm_up(plan.warm_up_s)
            progress.advance(warm)
        reader.read()  # what slowed the machine until here is not of this run
        measure = progress.add_task("measure", total=plan.blocks * len(lanes))
        for _ in range(plan.blocks):
            for lane in lanes:
                _block(lane, plan, reader)
                progress.advance(measure)
    told = {reading.throttled for lane in lanes for reading in lane.readings}
    return True if True in told else UNKNOWN if None in told else False


def _block(lane: Lane, plan: Schedule, reader: Reader) -> None:
    lane.ask_for(plan.rewarm_s, record=False)
    lane.blocks.append(len(lane.times.samples_ms.get(TOTAL, ())))
    energy, start = reader.energy_j(), time.perf_counter()
    lane.ask_for(plan.block_s, record=True)
    took, spent = time.perf_counter() - start, reader.energy_j()
    lane.clocks_mhz.append(fastest_core_mhz())  # before the sensors, which take their time
    reading = reader.read()
    lane.readings.append(reading)
    lane.watts.append(
        _board_watts(reading)
        if energy is None or spent is None
        else ((spent - energy) / took, ENERGY_COUNTER)
    )


def _board_watts(reading: Telemetry) -> tuple[float, str] | None:
    """Return the power that a board's rails tell and their names, read right after the last query of a block.

    NVML's power is none: newer cards tell the mean of the last second, in which the lane before ran too.
    """
    if reading.power_w is None or reading.power_from is None or reading.power_from == SENSOR:
        return None
    return reading.power_w, reading.power_from


def fastest_core_mhz() -> float | None:
    """Return the clock of the fastest core now in MHz (the busy one: idle cores sleep), or None where it cannot be read.

    Without a governor (virtual machines) the system tells only the nominal clock, which never falls: that is no reading.
    """
    clocks = clocks_mhz()
    return None if isinstance(clocks, str) or governor() == UNKNOWN else max(clocks.values())


def clock_drop(readings_mhz: Sequence[float | None]) -> float | None:
    """Return by which share the clock fell from the first third of the readings to the last (medians), or None if unknown."""
    known = [r for r in readings_mhz if r is not None]
    if len(known) < MIN_BLOCKS:
        return None
    third = len(known) // 3
    return max(0.0, 1 - statistics.median(known[-third:]) / statistics.median(known[:third]))
