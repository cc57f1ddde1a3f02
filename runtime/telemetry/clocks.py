"""Power mode and clocks of a Jetson; the CPU's clock anywhere.

- The mode: nvpmodel writes `pmode:0002` into /var/lib/nvpmodel/status; /etc/nvpmodel.conf names the modes, `< POWER_MODEL ID=2
  NAME=MAXN_SUPER >`. The number alone says nothing: mode 0 is MAXN on an AGX Orin and 15W on an Orin Nano Super.
- The GPU: a devfreq device, `17000000.gpu` or `17000000.ga10b` on Orin, `gpu-gpc-0` on Thor (`gpu-nvd-0` is its video engine), in Hz.
  `device/load` counts thousandths on Orin (rbonghi/jetson_stats, jtop/core/gpu.py).
- jetson_clocks locks by making the least clock the greatest.
- The memory (EMC): devfreq `bwmgr` where there is one, else a debug file that only root may read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.runtime.telemetry.sysfs import number, text

GPU = re.compile(r"\.(gpu|ga10b)$|^gpu-gpc-0$")


@dataclass(frozen=True)
class Clocks:
    """Where the clocks are: the folders of GPU (devfreq) and of each group of CPU cores (cpufreq), the memory's file, the mode's."""

    gpu: Path | None
    cpus: tuple[Path, ...]
    memory: Path | None
    mode: Path
    modes: Mapping[int, str]

    @classmethod
    def find(cls, root: Path) -> Clocks:
        """Look for them under `root`."""
        devfreq = root / "sys/class/devfreq"
        memory = (devfreq / "bwmgr/cur_freq", root / "sys/kernel/debug/bpmp/debug/clk/emc/rate")
        return cls(
            gpu=next((d for d in sorted(devfreq.glob("*")) if GPU.search(d.name)), None),
            cpus=tuple(sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))),
            memory=next((p for p in memory if number(p) is not None), None),
            mode=root / "var/lib/nvpmodel/status",
            modes=power_modes(root),
        )

    def power_mode(self) -> str | None:
        """Return the name of the nvpmodel mode, `mode 3` where its name is not known, None where no mode is set."""
        found = re.search(r"pmode:\s*(\d+)", text(self.mode))
        return None if found is None else self.modes.get(int(found[1]), f"mode {int(found[1])}")

    def locked(self) -> bool | None:
        """Tell whether GPU and CPU may not change their clocks (jetson_clocks); None where there is no such GPU or it does not tell."""
        if self.gpu is None:
            return None
        limits = [(number(self.gpu / "min_freq"), number(self.gpu / "max_freq"))]
        limits += [
            (number(c / "scaling_min_freq"), number(c / "scaling_max_freq")) for c in self.cpus
        ]
        return (
            None
            if any(None in pair for pair in limits)
            else all(low == high for low, high in limits)
        )

    def gpu_mhz(self) -> float | None:
        """Return the GPU's clock in MHz."""
        return None if self.gpu is None else _scaled(self.gpu / "cur_freq", 1e-6)

    def gpu_load(self) -> float | None:
        """Return how busy the GPU is, 0 to 1; None on Thor, whose file has no documented unit."""
        return (
            None
            if self.gpu is None or self.gpu.name == "gpu-gpc-0"
            else _scaled(self.gpu / "device/load", 1e-3)
        )

    def cpu_mhz(self) -> float | None:
        """Return the clock of the fastest CPU core in MHz."""
        return max(
            (
                c
                for c in (_scaled(p / "scaling_cur_freq", 1e-3) for p in self.cpus)
                if c is not None
            ),
            default=None,
        )

    def memory_mhz(self) -> float | None:
        """Return the memory's clock in MHz."""
        return None if self.memory is None else _scaled(self.memory, 1e-6)


def power_modes(root: Path = Path("/")) -> dict[int, str]:
    """Return the names of the nvpmodel modes by number; empty on other machines."""
    found = re.findall(
        r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text(root / "etc/nvpmodel.conf")
    )
    return {int(number_): name for number_, name in found}


def _scaled(path: Path, factor: float) -> float | None:
    value = number(path)
    return None if value is None else value * factor
