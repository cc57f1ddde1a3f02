"""Power rails: the monitors that sit on a Jetson's module and carrier, and which rail is the whole.

- Orin Nano, Orin NX: one INA3221 with VDD_IN (all that the module takes), and VDD_CPU_GPU_CV and VDD_SOC, which are parts of it. NVIDIA
  of the Xavier NX, whose labels are the same: "VDD_IN is the total power of module" (forum thread 200883).
- AGX Orin: VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0 of the INA3221 at 0x40 side by side, no input rail: the module takes their sum
  (labels: the kernel's tegra234-p3701-0000.dtsi; the sum: forum thread 217088, as rbonghi/jetson_stats quotes it). VDDQ_VDD2_1V8AO of
  the monitor at 0x41 is left out: users say that it hangs on VIN_SYS_5V0. The carrier board's own draw is in none of them.
- AGX Thor: an INA3221 with VDD_GPU, VDD_CPU_SOC_MSS and VIN_SYS_5V0, and an INA238 with VIN, the board's input. NVIDIA, forum thread
  366461: a carrier without the INA238 has no total. rbonghi/jetson_stats pull request 900 takes VIN for the total too.

A board with other labels has rails and no total. The INA3221's files are in mV and mA, the INA238's also in uW: the kernel's
Documentation/hwmon/ina3221.rst and ina238.rst. None of this was run on hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.runtime.telemetry.sysfs import number, text

# The rails that make the whole, the first that a board has: its input before the module's.
TOTALS = (("VIN",), ("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
NOT_CONNECTED = "NC"


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor: its label, and the number of its files in the monitor's folder."""

    name: str
    folder: Path
    channel: str

    def watts(self) -> float | None:
        """Return the power now in W, or None where the channel does not answer; a channel's offset can make it negative."""
        microwatts = number(self.folder / f"power{self.channel}_input")
        if microwatts is not None:
            return microwatts / 1e6
        millivolts, milliamps = (
            number(self.folder / f"in{self.channel}_input"),
            number(self.folder / f"curr{self.channel}_input"),
        )
        return None if millivolts is None or milliamps is None else millivolts * milliamps / 1e6


def find_rails(root: Path) -> tuple[Rail, ...]:
    """Return the labelled rails of the power monitors under `root`/sys/class/hwmon."""
    monitors = [
        m
        for m in sorted((root / "sys/class/hwmon").glob("hwmon*"))
        if text(m / "name") in ("ina3221", "ina238")
    ]
    return tuple(rail for monitor in monitors for rail in _rails_of(monitor))


def total(watts: Mapping[str, float | None]) -> tuple[float | None, str | None]:
    """Return the whole power in W and the rails it is made of; None and None for a board whose whole is not known.

    A whole of which a part does not answer is None too.
    """
    rails = next((names for names in TOTALS if all(n in watts for n in names)), None)
    if rails is None:
        return None, None
    parts = [w for w in (watts[n] for n in rails) if w is not None]
    return (sum(parts) if len(parts) == len(rails) else None), " + ".join(rails)


def _rails_of(monitor: Path) -> Iterator[Rail]:
    for path in sorted(monitor.glob("curr*_input")):
        channel = path.name.removeprefix("curr").removesuffix("_input")
        # The INA238 has one channel, and its label may be the whole monitor's.
        name = text(monitor / f"in{channel}_label") or (
            text(monitor / "label") if channel == "1" else ""
        )
        if name and name != NOT_CONNECTED:
            yield Rail(name, monitor, channel)
