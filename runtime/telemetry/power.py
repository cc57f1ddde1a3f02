"""Power rails: the monitors on a Jetson's module and carrier, and which rails are its total.

- Orin Nano, Orin NX: one INA3221 with VDD_IN (the whole module), and VDD_CPU_GPU_CV and VDD_SOC,
  which are parts of it. NVIDIA on the Xavier NX, whose labels are the same: "VDD_IN is the total
  power of module" (forum thread 200883).
- AGX Orin: VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0 of the INA3221 at 0x40 side by side, without an
  input rail: the module takes their sum. The labels are in the kernel's tegra234-p3701-0000.dtsi;
  the sum is in forum thread 217088, as rbonghi/jetson_stats quotes it. VDDQ_VDD2_1V8AO of the
  monitor at 0x41 is left out: users report that VIN_SYS_5V0 feeds it. The carrier board's own power
  is in none of them.
- AGX Thor: an INA3221 with VDD_GPU, VDD_CPU_SOC_MSS and VIN_SYS_5V0, and an INA238 with VIN, the
  board's input. NVIDIA, forum thread 366461: a carrier without the INA238 has no total.
  rbonghi/jetson_stats pull request 900 also uses VIN as the total.

A board with other labels has rails and no total. The INA3221's files are in mV and mA, the INA238's
also in uW: see the kernel's Documentation/hwmon/ina3221.rst and ina238.rst. None of this was run on
hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.runtime.machine.sysfs import number, text

# The rails that make the total. The first entry that a board has counts: its input before the
# module's.
TOTALS = (("VIN",), ("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
NOT_CONNECTED = "NC"
MONITORS = ("ina3221", "ina238")


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor: its label, and the number in the names of its files."""

    name: str
    folder: Path
    channel: str

    def watts(self) -> float | None:
        """Return the present power in W, or None where the channel does not answer.

        A channel's offset can make it negative.
        """
        microwatts = number(self.folder / f"power{self.channel}_input")
        if microwatts is not None:
            return microwatts / 1e6
        millivolts = number(self.folder / f"in{self.channel}_input")
        milliamps = number(self.folder / f"curr{self.channel}_input")
        if millivolts is None or milliamps is None:
            return None
        return millivolts * milliamps / 1e6


def find_rails(root: Path) -> tuple[Rail, ...]:
    """Return the labelled rails of the power monitors under `root`/sys/class/hwmon."""
    devices = sorted((root / "sys/class/hwmon").glob("hwmon*"))
    monitors = [device for device in devices if text(device / "name") in MONITORS]
    return tuple(rail for monitor in monitors for rail in _rails_of(monitor))


def total(watts: Mapping[str, float | None]) -> tuple[float | None, str | None]:
    """Return the total power in W and the rails it is the sum of.

    Both are None for a board whose total is not known. The total alone is None if one of its rails
    does not answer.
    """
    rails = next((names for names in TOTALS if all(name in watts for name in names)), None)
    if rails is None:
        return None, None
    parts = [part for part in (watts[name] for name in rails) if part is not None]
    return (sum(parts) if len(parts) == len(rails) else None), " + ".join(rails)


def _rails_of(monitor: Path) -> Iterator[Rail]:
    for path in sorted(monitor.glob("curr*_input")):
        channel = path.name.removeprefix("curr").removesuffix("_input")
        # The INA238 has one channel, and its label may be the whole monitor's.
        name = text(monitor / f"in{channel}_label")
        if not name and channel == "1":
            name = text(monitor / "label")
        if name and name != NOT_CONNECTED:
            yield Rail(name, monitor, channel)
