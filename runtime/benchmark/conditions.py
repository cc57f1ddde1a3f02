"""Under which conditions a row was measured, and whether they make it INVALID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.measure import Measured
from finedge.runtime.benchmark.options import Claims
from finedge.runtime.benchmark.rows import unsupported
from finedge.runtime.benchmark.run import clock_drop
from finedge.runtime.evaluate.predict import Answers
from finedge.runtime.machine.sysfs import UNKNOWN

MAX_CLOCK_DROP = 0.05


def clocks_record(lane: BenchmarkLane) -> dict[str, Any]:
    """Return the clocks in MHz before and after a row, their fall, and whether they were locked."""
    locked = lane.readings[-1].clocks_locked if lane.readings else None
    gpu = _clock_record(lane.gpu_mhz) if lane.on_gpu else {}
    return {
        **_clock_record(lane.clocks_mhz),
        **{f"gpu_{name}": value for name, value in gpu.items()},
        "locked": UNKNOWN if locked is None else locked,
    }


def _clock_record(readings_mhz: Sequence[float | None]) -> dict[str, Any]:
    drop = clock_drop(readings_mhz)
    return {
        "before_mhz": readings_mhz[0] if readings_mhz else None,
        "after_mhz": readings_mhz[-1] if readings_mhz else None,
        "drop": UNKNOWN if drop is None else round(drop, 4),
    }


def power_record(lane: BenchmarkLane) -> dict[str, Any]:
    """Return the mean power in W of the blocks, its sensor and the number of its readings.

    There is no mean if the sensor failed in a block.
    """
    watts = [reading for reading in lane.watts if reading is not None]
    if not watts or len(watts) < len(lane.watts):
        return {"mean_w": None, "sensor": None, "readings": len(watts)}
    mean = sum(power for power, _ in watts) / len(watts)
    return {"mean_w": round(mean, 4), "sensor": watts[0][1], "readings": len(watts)}


def power_mode(lane: BenchmarkLane) -> str:
    """Return the name of the board's power mode, or "unknown"."""
    return (lane.readings[-1].power_mode if lane.readings else None) or UNKNOWN


def invalid_reasons(lane: BenchmarkLane, measured: Measured, *, claims: Claims) -> tuple[str, ...]:
    """Return why a row must not be believed; empty for a valid one."""
    reasons = [*unsupported(claims.percentiles, len(lane.times[TOTAL])), *lane.problems()]
    reasons += _clock_reasons("clock", lane.clocks_mhz)
    if lane.on_gpu:
        reasons += _clock_reasons("GPU's clock", lane.gpu_mhz)
    if measured.throttled is True:
        causes = ", ".join(measured.throttled_by) or "no cause was reported"
        reasons.append(f"the machine was slowed while measuring: {causes}")
    if claims.gate is not None:
        reasons += _gate_reasons(measured.answers.get(lane.key), claims.gate)
    return tuple(reasons)


def _clock_reasons(clock: str, readings_mhz: Sequence[float | None]) -> list[str]:
    drop = clock_drop(readings_mhz)
    if drop is None or drop <= MAX_CLOCK_DROP:
        return []
    return [f"the {clock} fell by {drop:.1%} while measuring (at most {MAX_CLOCK_DROP:.0%})"]


def _gate_reasons(answers: Answers | None, gate: float) -> list[str]:
    if answers is None:
        return [f"a gate of top-1 {gate:g} was set, but accuracy was not measured"]
    top1 = float(answers.correct.mean())
    return [f"top-1 {top1:.4f} is below the gate {gate:g}"] if top1 < gate else []
