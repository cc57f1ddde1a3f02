"""The run: each lane gets a block in turn (A-B-C-A-B-C), so that drift meets all lanes alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from finedge.progress import progress_bar
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.schedule import MIN_BLOCKS, Schedule
from finedge.runtime.machine.sysfs import UNKNOWN
from finedge.runtime.telemetry import Reader, Telemetry
from finedge.runtime.telemetry.environment import clocks_mhz, governor
from finedge.runtime.telemetry.nvml import SENSOR

ENERGY_COUNTER = "NVML's energy counter of the GPU's board"


def interleave(
    lanes: Sequence[BenchmarkLane], plan: Schedule, *, reader: Reader | None = None
) -> None:
    """Warm all lanes, then measure them block by block.

    `reader` has the sensors; default: those of this machine.
    """
    if not lanes:
        return
    reader = reader or Reader()
    with progress_bar("warm-up", len(lanes)) as advance:
        for lane in lanes:
            lane.warm_up(plan.warm_up_s)
            advance(1)
    reader.read()  # it counts from here on: what slowed the machine earlier is not of this run
    with progress_bar("measure", plan.blocks * len(lanes)) as advance:
        for _ in range(plan.blocks):
            for lane in lanes:
                _block(lane, plan, reader)
                advance(1)


def _block(lane: BenchmarkLane, plan: Schedule, reader: Reader) -> None:
    lane.ask_for(plan.rewarm_s, record=False)
    lane.blocks.append(len(lane.times.samples_ms.get(TOTAL, ())))
    before_j, start = reader.energy_j(), time.perf_counter()
    lane.ask_for(plan.block_s, record=True)
    seconds, after_j = time.perf_counter() - start, reader.energy_j()
    lane.clocks_mhz.append(fastest_core_mhz())  # before the sensors, which take their time
    reading = reader.read()
    lane.readings.append(reading)
    if before_j is None or after_j is None:
        lane.watts.append(_board_watts(reading))
    else:
        lane.watts.append(((after_j - before_j) / seconds, ENERGY_COUNTER))


def _board_watts(reading: Telemetry) -> tuple[float, str] | None:
    """Return the power of a board's rails and their names, read right after a block's last query.

    NVML's power is not used: newer cards report the mean of the last second, in which the lane
    before ran too.
    """
    if reading.power_w is None or reading.power_from is None or reading.power_from == SENSOR:
        return None
    return reading.power_w, reading.power_from


def fastest_core_mhz() -> float | None:
    """Return the present clock of the fastest core in MHz, or None where it cannot be read.

    The fastest core is the busy one: idle cores sleep. Without a governor (virtual machines) the
    system reports only the nominal clock, which never falls: that is no reading.
    """
    clocks = clocks_mhz()
    return None if isinstance(clocks, str) or governor() == UNKNOWN else max(clocks.values())


def clock_drop(readings_mhz: Sequence[float | None]) -> float | None:
    """Return by which share the clock fell, or None if unknown.

    The median of the first third of the readings is compared with that of the last third.
    """
    clocks = [mhz for mhz in readings_mhz if mhz is not None]
    if len(clocks) < MIN_BLOCKS:
        return None
    third = len(clocks) // 3
    return max(0.0, 1 - statistics.median(clocks[-third:]) / statistics.median(clocks[:third]))
