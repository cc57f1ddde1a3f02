"""A desktop's GPU through NVIDIA's management library (NVML).

It needs the package nvidia-ml-py (`pynvml`) and a driver. On Orin the library is there and answers
every one of these questions with "not supported" (HazyResearch/intelligence-per-watt issue 40), so
each answer may be missing.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.cuda.binding import Cuda, binding
from finedge.runtime.cuda.gpu import gpu
from finedge.runtime.machine.packages import PackageMissing, failure_text, load_package

log = logging.getLogger(__name__)

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h). A clock held by the power limit (4) is
# how a loaded card runs: that is no throttling.
REASONS = {
    0x08: "GPU: hardware slowdown",
    0x20: "GPU: heat (driver)",
    0x40: "GPU: heat (hardware)",
    0x80: "GPU: power brake",
}
SENSOR = "NVML, the GPU's board alone"


@dataclass(frozen=True)
class GpuReading:
    """One reading; None where the GPU does not report a value.

    `load` is 0 to 1; `reasons` say what slows the GPU.
    """

    power_w: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    load: float | None = None
    reasons: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Nvml:
    """The GPU that work goes to; `api` is pynvml, or a test's stand-in."""

    api: Any
    handle: Any

    @classmethod
    def open(cls, api: Any = None) -> Nvml | None:
        """Return the GPU, or None without the package or a driver.

        None too where it cannot be known which of several GPUs CUDA uses.
        """
        try:
            api = api or load_package("pynvml")
        except PackageMissing:
            return None
        except SystemProblem as error:
            _warn(error.what)
            return None
        try:
            handle = _handle(api)
        except Exception as error:  # a package of this name without NVMLError, and more
            _warn(failure_text(error))
            return None
        return None if handle is None else cls(api, handle)

    def read(self) -> GpuReading:
        """Read the GPU now."""
        power = self._ask("nvmlDeviceGetPowerUsage")
        load = self._ask("nvmlDeviceGetUtilizationRates")
        return GpuReading(
            power_w=None if power is None else power / 1e3,
            temperature_c=self._ask("nvmlDeviceGetTemperature", self.api.NVML_TEMPERATURE_GPU),
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", self.api.NVML_CLOCK_SM),
            load=None if load is None else load.gpu / 100,
            reasons=self._reasons(),
        )

    def energy_j(self) -> float | None:
        """Return the energy in J that the GPU's board used since the driver was loaded.

        Volta and newer.
        """
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _reasons(self) -> tuple[str, ...] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # its name before CUDA 12.2
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if bits is None:
            return None
        return tuple(name for bit, name in REASONS.items() if bits & bit)

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self.api, function)(self.handle, *arguments)
        except (self.api.NVMLError, AttributeError):  # AttributeError: an older pynvml
            return None


def _handle(api: Any) -> Any:
    """Return NVML's handle of the GPU that work goes to, or None where there is none."""
    try:
        api.nvmlInit()
        only_one = api.nvmlDeviceGetCount() == 1
        return api.nvmlDeviceGetHandleByIndex(0) if only_one else _by_bus(api)
    except (api.NVMLError, SystemProblem):  # no driver, or no GPU
        return None


@functools.cache
def _warn(reason: str) -> None:
    """Warn once that a machine with NVML's package has no readings of its GPU, and why."""
    log.warning("the GPU's power, clock and temperature are not read: %s", reason)


def _by_bus(api: Any) -> Any:
    """Return CUDA's device 0 by its place on the bus.

    CUDA_VISIBLE_DEVICES chooses that device, and NVML does not read this variable.
    """
    if gpu() is None:
        return None
    name = Cuda(binding())("cudaDeviceGetPCIBusId", 32, 0)
    return api.nvmlDeviceGetHandleByPciBusId(name.rstrip(b"\0"))
