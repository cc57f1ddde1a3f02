"""Temperatures, the fan, and what slows the machine down.

- Slowed now: a cooling device whose kind ends with `-throttle-alert` (cpu, gpu, soc0, ...) in a
  state above 0. Other cooling devices say nothing: the fan's state is its speed, and `devfreq-*`
  and `cpufreq-*` are above 0 whenever a power mode caps a clock.
- Slowed since boot, counted. On a Jetson by its supply: `oc1_event_cnt` (under-voltage), `oc2`
  (average current) and `oc3` (peak current) of the hwmon device `soctherm_oc` (NVIDIA's kernel
  driver of soctherm-oc-event; users report what each means, its source has numbers only). On x86
  by heat: `core_throttle_count`. A count above 0 is history: a Thor can boot with oc3 = 1 (NVIDIA
  forum thread 361188). Only a count that grows is throttling.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finedge.runtime.machine.sysfs import number, text

OFFLINE_C = -256  # the value of a Jetson's zone while its sensor is switched off
OC_EVENTS = {
    "oc1_event_cnt": "oc1 (under-voltage)",
    "oc2_event_cnt": "oc2 (average current)",
    "oc3_event_cnt": "oc3 (peak current)",
}
FULL_PWM = 255


def find_zones(root: Path) -> dict[str, Path]:
    """Return the file of each thermal zone by its kind; further zones of one kind are numbered."""
    zones: dict[str, Path] = {}
    for zone in _numbered(root, "thermal_zone"):
        zones[_free(text(zone / "type") or zone.name, zones)] = zone / "temp"
    return zones


def celsius(path: Path) -> float | None:
    """Return a zone's temperature in degrees Celsius, or None while its sensor is off."""
    value = number(path)
    return None if value is None or value / 1e3 <= OFFLINE_C else value / 1e3


def find_alerts(root: Path) -> dict[str, Path]:
    """Return the state file of each throttle alert by its kind."""
    kinds = {device: text(device / "type") for device in _numbered(root, "cooling_device")}
    return {
        kind: device / "cur_state"
        for device, kind in kinds.items()
        if kind.endswith("-throttle-alert")
    }


def find_counters(root: Path) -> dict[str, Path]:
    """Return the files that count how often the machine was slowed since boot."""
    monitors = [m for m in _hwmon(root) if text(m / "name") == "soctherm_oc"]
    counters = {
        name: monitor / file
        for monitor in monitors
        for file, name in OC_EVENTS.items()
        if (monitor / file).exists()
    }
    cpus = root / "sys/devices/system/cpu"
    cores = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return counters | {f"heat ({path.parts[-3]})": path for path in cores}


def find_fan(root: Path) -> Path | None:
    """Return the file of the fan's duty, 0 to 255, on a Jetson."""
    return next((m / "pwm1" for m in _hwmon(root) if text(m / "name") == "pwmfan"), None)


def fan_share(path: Path) -> float | None:
    """Return how hard the fan is driven, 0 to 1."""
    value = number(path)
    return None if value is None else value / FULL_PWM


def _hwmon(root: Path) -> Iterator[Path]:
    yield from sorted((root / "sys/class/hwmon").glob("hwmon*"))


def _numbered(root: Path, kind: str) -> list[Path]:
    return sorted(
        (root / "sys/class/thermal").glob(f"{kind}[0-9]*"),
        key=lambda p: int(p.name.removeprefix(kind)),
    )


def _free(name: str, taken: dict[str, Path]) -> str:
    """Return a name that is not taken yet: `name`, `name 2`, `name 3`."""
    names = (name, *(f"{name} {i}" for i in range(2, len(taken) + 3)))
    return next(free for free in names if free not in taken)
