"""The GPU of this machine: whether there is one, its clocks, and times by CUDA events."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from finedge.runtime.cuda.libcuda import LIBRARY as LIBRARY
from finedge.runtime.trt.plugin.driver import Driver

NO_GPU = "no NVIDIA GPU that torch can use"


def device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_driver(library: str) -> Driver:
    """Open the CUDA driver with torch's context: both then share streams and memory."""
    torch.zeros(1, device=device())
    driver = Driver(library)
    if not torch.cuda.is_available():
        retain_context(driver)
    return driver


def retain_context(driver: Driver) -> None:
    """Make the primary context of device 0 current."""
    context = ctypes.c_void_p()
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    driver.call("cuCtxSetCurrent", context)


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long the GPU takes for what `call` puts on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def as_graph(call: Callable[[], object], *, times: int) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of `times` calls, warmed up."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def clocks() -> dict[str, Any]:
    """Return clocks in MHz, power in watts, temperature in degrees; nothing without NVML."""
    with suppress(Exception):  # a missing package or a refused query: the row goes without
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "sm_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "watts": round(pynvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            "celsius": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        }
    return {}
