"""One reading of every sensor: `Telemetry`, and the `Reader` that finds the files once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finedge.runtime.machine.sysfs import number
from finedge.runtime.telemetry.clocks import Clocks
from finedge.runtime.telemetry.nvml import SENSOR, GpuReading, Nvml
from finedge.runtime.telemetry.power import find_rails, total
from finedge.runtime.telemetry.thermal import (
    celsius,
    fan_share,
    find_alerts,
    find_counters,
    find_fan,
    find_zones,
)


@dataclass(frozen=True)
class Telemetry:
    """What could be read; None means "not known", never a guess.

    Attributes:
        power_w: the power in W of what `power_from` names: a Jetson's input, or a desktop's GPU
            board alone.
        power_from: the rails or the library that `power_w` was read from.
        rails: W by rail; some are parts of others.
        temperatures_c: degrees Celsius by sensor; a sensor that is switched off is None.
        power_mode: the name of a Jetson's nvpmodel mode, e.g. "MAXN_SUPER".
        clocks_locked: whether GPU and CPU clocks are fixed (jetson_clocks); None on desktops.
        throttled: whether heat or current slows the machine now, or did since the last reading.
        throttled_by: what reported it.
        throttle_events: how often since boot, by cause.
        gpu_util: how busy the GPU is, 0 to 1.
        gpu_mhz: the GPU's clock.
        cpu_mhz: the clock of the fastest core.
        memory_mhz: the memory's clock, on a Jetson.
        fan: how hard the fan is driven, 0 to 1, on a Jetson.
    """

    power_w: float | None = None
    power_from: str | None = None
    rails: Mapping[str, float | None] = field(default_factory=dict)
    temperatures_c: Mapping[str, float | None] = field(default_factory=dict)
    power_mode: str | None = None
    clocks_locked: bool | None = None
    throttled: bool | None = None
    throttled_by: tuple[str, ...] = ()
    throttle_events: Mapping[str, int] = field(default_factory=dict)
    gpu_util: float | None = None
    gpu_mhz: float | None = None
    cpu_mhz: float | None = None
    memory_mhz: float | None = None
    fan: float | None = None

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature in degrees Celsius."""
        return max((t for t in self.temperatures_c.values() if t is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, numbers to three decimals."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


class Reader:
    """The sensors of one machine: found once, then a few dozen small files are read each time.

    Threads must not share one.

        reader = Reader()
        print(reader.read().power_w)

    Args:
        root: where /sys, /etc and /var are.
        nvml: the GPU; by default that of this machine, if `root` is this machine's.
    """

    def __init__(self, root: Path = Path("/"), *, nvml: Nvml | None = None) -> None:
        self._rails, self._clocks = find_rails(root), Clocks.find(root)
        self._zones, self._fan = find_zones(root), find_fan(root)
        self._alerts, self._counters = find_alerts(root), find_counters(root)
        self._nvml = nvml or (Nvml.open() if root == Path("/") else None)
        self._events = self._count()

    def read(self) -> Telemetry:
        """Read every sensor now; the power first, while it still shows the last block of work."""
        rails = {rail.name: rail.watts() for rail in self._rails}
        gpu = GpuReading() if self._nvml is None else self._nvml.read()
        power_w, power_from = total(rails)
        if power_from is None and gpu.power_w is not None:
            power_w, power_from = gpu.power_w, SENSOR
        throttled, causes = self._throttling(gpu)
        clocks = self._clocks
        return Telemetry(
            power_w=power_w,
            power_from=power_from,
            rails=rails,
            temperatures_c=self._temperatures(gpu),
            power_mode=clocks.power_mode(),
            clocks_locked=clocks.locked(),
            throttled=throttled,
            throttled_by=causes,
            throttle_events=dict(self._events),
            gpu_util=_first(clocks.gpu_load(), gpu.load),
            gpu_mhz=_first(clocks.gpu_mhz(), gpu.clock_mhz),
            cpu_mhz=clocks.cpu_mhz(),
            memory_mhz=clocks.memory_mhz(),
            fan=None if self._fan is None else fan_share(self._fan),
        )

    def energy_j(self) -> float | None:
        """Return an energy counter in J, or None where there is none (Jetson).

        Only the difference of two readings has a meaning.
        """
        return None if self._nvml is None else self._nvml.energy_j()

    def _throttling(self, gpu: GpuReading) -> tuple[bool | None, tuple[str, ...]]:
        """Return whether the machine is slowed, None if nothing reports it, and the causes."""
        states = {name: number(path) for name, path in self._alerts.items()}
        before, self._events = self._events, self._count()
        causes = [name for name, state in states.items() if state]
        causes += [name for name, count in self._events.items() if count > before.get(name, count)]
        causes += gpu.reasons or ()
        alerts = any(state is not None for state in states.values())
        reported = alerts or bool(self._events) or gpu.reasons is not None
        return (bool(causes) if reported else None), tuple(causes)

    def _count(self) -> dict[str, int]:
        counts = {name: number(path) for name, path in self._counters.items()}
        return {name: int(count) for name, count in counts.items() if count is not None}

    def _temperatures(self, gpu: GpuReading) -> dict[str, float | None]:
        zones = {name: celsius(path) for name, path in self._zones.items()}
        return zones if gpu.temperature_c is None else zones | {"GPU": float(gpu.temperature_c)}


def read_telemetry(root: Path = Path("/")) -> Telemetry:
    """Find and read every sensor once; for many readings keep a `Reader`."""
    return Reader(root).read()


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return round(value, 3) if isinstance(value, float) else value
