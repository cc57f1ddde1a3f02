"""Power mode and clocks of a Jetson; the CPU's clock anywhere.

- The mode: nvpmodel writes `pmode:0002` into /var/lib/nvpmodel/status; /etc/nvpmodel.conf names the
  modes, `< POWER_MODEL ID=2 NAME=MAXN_SUPER >`. The number alone says nothing: mode 0 is MAXN on an
  AGX Orin and 15W on an Orin Nano Super.
- The GPU: a devfreq device, `17000000.gpu` or `17000000.ga10b` on Orin, `gpu-gpc-0` on Thor
  (`gpu-nvd-0` is its video engine), in Hz. `device/load` counts thousandths on Orin
  (rbonghi/jetson_stats, jtop/core/gpu.py).
- jetson_clocks locks a clock by raising its minimum to its maximum.
- The memory (EMC): devfreq `bwmgr` where there is one, else a debug file that only root may read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.runtime.machine.sysfs import number, text

GPU = re.compile(r"\.(gpu|ga10b)$|^gpu-gpc-0$")


@dataclass(frozen=True)
class Clocks:
    """Where the clocks are.

    Attributes:
        gpu: the folder of the GPU (devfreq).
        cpus: the folder of each group of CPU cores (cpufreq).
        memory: the file of the memory's clock.
        mode: the file of the power mode.
        modes: the names of the power modes by number.
    """

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
        """Return the name of the nvpmodel mode, or None where no mode is set.

        A mode whose name is not known is `mode 3`.
        """
        match = re.search(r"pmode:\s*(\d+)", text(self.mode))
        if match is None:
            return None
        mode = int(match[1])
        return self.modes.get(mode, f"mode {mode}")

    def locked(self) -> bool | None:
        """Tell whether the clocks of GPU and CPU are fixed (jetson_clocks).

        None where there is no such GPU, or a limit cannot be read.
        """
        if self.gpu is None:
            return None
        limits = [(number(self.gpu / "min_freq"), number(self.gpu / "max_freq"))]
        limits += [
            (number(cpu / "scaling_min_freq"), number(cpu / "scaling_max_freq"))
            for cpu in self.cpus
        ]
        if any(None in pair for pair in limits):
            return None
        return all(low == high for low, high in limits)

    def gpu_mhz(self) -> float | None:
        """Return the GPU's clock in MHz."""
        return None if self.gpu is None else _scaled(self.gpu / "cur_freq", 1e-6)

    def gpu_load(self) -> float | None:
        """Return how busy the GPU is, 0 to 1; None on Thor, whose file has no documented unit."""
        if self.gpu is None or self.gpu.name == "gpu-gpc-0":
            return None
        return _scaled(self.gpu / "device/load", 1e-3)

    def cpu_mhz(self) -> float | None:
        """Return the clock of the fastest CPU core in MHz."""
        clocks = [_scaled(cpu / "scaling_cur_freq", 1e-3) for cpu in self.cpus]
        return max((clock for clock in clocks if clock is not None), default=None)

    def memory_mhz(self) -> float | None:
        """Return the memory's clock in MHz."""
        return None if self.memory is None else _scaled(self.memory, 1e-6)


def power_modes(root: Path = Path("/")) -> dict[int, str]:
    """Return the names of the nvpmodel modes by number; empty on other machines."""
    pattern = r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>"
    modes = re.findall(pattern, text(root / "etc/nvpmodel.conf"))
    return {int(mode): name for mode, name in modes}


def _scaled(path: Path, factor: float) -> float | None:
    value = number(path)
    return None if value is None else value * factor
