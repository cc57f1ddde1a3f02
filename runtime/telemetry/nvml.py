"""What NVIDIA's management library tells of a desktop's GPU; needs the package nvidia-ml-py (`pynvml`) and a driver.

On Orin the library is there and answers every one of these questions with "not supported" (HazyResearch/intelligence-per-watt issue 40):
each answer may be missing.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.trt import cuda

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h). A clock held by the power limit (4) is how a loaded card runs: no throttling.
REASONS = {
    0x08: "GPU: hardware slowdown",
    0x20: "GPU: heat (driver)",
    0x40: "GPU: heat (hardware)",
    0x80: "GPU: power brake",
}
SENSOR = "NVML, the GPU's board alone"


@dataclass(frozen=True)
class GpuReading:
    """One reading: power in W, temperature in degrees Celsius, clock in MHz, load 0 to 1, reasons it is slowed; None: not told."""

    power_w: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    load: float | None = None
    reasons: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Nvml:
    """The GPU that work goes to; `api` is pynvml, or what a test gives for it."""

    api: Any
    handle: Any

    @classmethod
    def open(cls, api: Any = None) -> Nvml | None:
        """Return the GPU, or None without the package, a driver, or a way to tell which of several GPUs CUDA uses."""
        with suppress(ImportError):
            api = api or importlib.import_module("pynvml")
        if api is None:
            return None
        try:
            api.nvmlInit()
            handle = (
                api.nvmlDeviceGetHandleByIndex(0) if api.nvmlDeviceGetCount() == 1 else _by_bus(api)
            )
        except (api.NVMLError, SystemProblem):
            return None
        return None if handle is None else cls(api, handle)

    def read(self) -> GpuReading:
        """Read the GPU now."""
        power, load = (
            self._ask("nvmlDeviceGetPowerUsage"),
            self._ask("nvmlDeviceGetUtilizationRates"),
        )
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        bits = (
            self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") if bits is None else bits
        )  # its name before CUDA 12.2
        return GpuReading(
            power_w=None if power is None else power / 1e3,
            temperature_c=self._ask("nvmlDeviceGetTemperature", self.api.NVML_TEMPERATURE_GPU),
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", self.api.NVML_CLOCK_SM),
            load=None if load is None else load.gpu / 100,
            reasons=None
            if bits is None
            else tuple(name for bit, name in REASONS.items() if bits & bit),
        )

    def energy_j(self) -> float | None:
        """Return the energy in J that the GPU's board took since the driver was loaded (Volta and newer)."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self.api, function)(self.handle, *arguments)
        except (self.api.NVMLError, AttributeError):
            return None


def _by_bus(api: Any) -> Any:
    """Return CUDA's device 0, which CUDA_VISIBLE_DEVICES chooses and NVML does not know of, by its place on the bus."""
    if cuda.gpu() is None:
        return None
    name = cuda.Cuda(cuda.binding())("cudaDeviceGetPCIBusId", 32, 0)
    return api.nvmlDeviceGetHandleByPciBusId(name.rstrip(b"\0"))
