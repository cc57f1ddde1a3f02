"""A desktop's GPU through NVML.

A fake answers as pynvml does; the names are those of the installed package.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.telemetry import Reader, nvml
from finedge.runtime.telemetry.nvml import REASONS, SENSOR, GpuReading, Nvml, _warn
from tests.jetson.boards.trees import make


class NotSupported(Exception):
    """Stands for pynvml.NVMLError."""


class FakeNvml:
    """Answers as pynvml does; what is not in `answers` is not supported."""

    NVMLError = NotSupported
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    def __init__(self, *, count: int = 1, **answers: Any) -> None:
        self.count, self.answers = count, answers

    def nvmlInit(self) -> None:  # noqa: N802
        if self.count == 0:
            raise NotSupported

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def __getattr__(self, name: str) -> Any:
        def ask(_handle: int, *_which: int) -> Any:
            if name not in self.answers:
                raise NotSupported
            return self.answers[name]

        return ask


BUSY = {
    "nvmlDeviceGetPowerUsage": 187_500,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93, memory=40),
    "nvmlDeviceGetTemperature": 71,
    "nvmlDeviceGetClockInfo": 1905,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x04,
    "nvmlDeviceGetTotalEnergyConsumption": 5_000_500,
}


def test_units_are_watts_degrees_megahertz_and_shares() -> None:
    nvml = Nvml.open(FakeNvml(**BUSY))
    assert nvml is not None
    assert nvml.read() == GpuReading(
        power_w=187.5, temperature_c=71, clock_mhz=1905, load=0.93, reasons=()
    )
    assert nvml.energy_j() == 5000.5


def test_a_library_that_supports_nothing_gives_nothing() -> None:
    nvml = Nvml.open(FakeNvml())  # as on Orin
    assert nvml is not None
    assert nvml.read() == GpuReading()
    assert nvml.energy_j() is None


def test_no_driver_is_no_gpu() -> None:
    assert Nvml.open(FakeNvml(count=0)) is None


def test_of_several_gpus_none_is_guessed() -> None:
    assert Nvml.open(FakeNvml(count=2)) is None  # here CUDA cannot tell which one it would use


def test_a_gpu_that_is_at_fault_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_fault() -> None:
        raise SystemProblem("cudaGetDeviceProperties failed")

    monkeypatch.setattr(nvml, "gpu", at_fault)
    assert Nvml.open(FakeNvml(count=2)) is None


@pytest.mark.parametrize("bit", REASONS)
def test_each_reason_is_told(bit: int) -> None:
    nvml = Nvml.open(FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=bit))
    assert nvml is not None
    assert nvml.read().reasons == (REASONS[bit],)


def test_an_older_library_is_asked_by_the_older_name() -> None:
    nvml = Nvml.open(FakeNvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x40))
    assert nvml is not None
    assert nvml.read().reasons == (REASONS[0x40],)


def test_a_desktops_reading_names_the_sensor_and_what_slows_it(tmp_path: Path) -> None:
    hot = BUSY | {"nvmlDeviceGetCurrentClocksEventReasons": 0x40}
    t = Reader(make(tmp_path, "desktop"), nvml=Nvml.open(FakeNvml(**hot))).read()
    assert (t.power_w, t.power_from, t.gpu_mhz, t.gpu_util) == (187.5, SENSOR, 1905, 0.93)
    assert t.temperatures_c["GPU"] == 71
    assert (t.throttled, t.throttled_by) == (True, (REASONS[0x40],))


def test_a_boards_own_rails_come_before_nvml(tmp_path: Path) -> None:
    t = Reader(make(tmp_path, "thor"), nvml=Nvml.open(FakeNvml(**BUSY))).read()
    assert (t.power_w, t.power_from, t.gpu_mhz) == (26.2, "VIN", 315)


def test_the_names_and_bits_are_those_of_the_library() -> None:
    api = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert all(
        hasattr(api, name)
        for name in (
            *BUSY,
            "NVMLError",
            "nvmlDeviceGetHandleByPciBusId",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        )
    )
    assert (api.NVML_TEMPERATURE_GPU, api.NVML_CLOCK_SM) == (0, 1)
    names = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    assert {getattr(api, f"nvmlClocksEventReason{n}") for n in names} == set(REASONS)


def test_without_the_package_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert Nvml.open() is None


@pytest.mark.parametrize("api", [SimpleNamespace(), SimpleNamespace(nvmlInit=print)])
def test_another_package_of_the_name_is_no_gpu_and_says_so_once(
    api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _warn.cache_clear()
    assert Nvml.open(api) is None
    assert Nvml.open(api) is None
    assert caplog.text.count("are not read: AttributeError") == 1


def test_a_package_that_does_not_load_is_no_gpu_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pynvml.py").write_text("raise OSError('libnvidia-ml.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert Nvml.open() is None
    assert "the package pynvml does not load: OSError: libnvidia-ml.so.1" in caplog.text
