"""What each board's files are read as; the trees are made, not recorded."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from finedge.runtime.telemetry import Reader, Telemetry, read_telemetry
from finedge.runtime.telemetry.clocks import power_modes
from tests.jetson.boards.trees import (
    BOARDS,
    BROKEN,
    JETSONS,
    alerts,
    currents,
    make,
    modes,
    monitor,
    orin_gpu,
    write,
)

# power in W, where from, mode, locked, GPU MHz
EXPECTED = {
    "orin-nano": (4.984 * 1.856, "VDD_IN", "25W", False, 306),
    "orin-nx": (5.016 * 3.1, "VDD_IN", "MAXN", True, 918),
    "agx-orin": (
        19 * 0.32 + 19 * 0.1 + 4.968 * 0.953,
        "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0",
        "MODE_30W",
        False,
        306,
    ),
    "thor": (26.2, "VIN", "120W", False, 315),
    "desktop": (None, None, None, None, None),
}


@pytest.mark.parametrize("board", BOARDS)
def test_each_boards_power_mode_and_clocks(tmp_path: Path, board: str) -> None:
    t = read_telemetry(make(tmp_path, board))
    power, source, mode, locked, gpu_mhz = EXPECTED[board]
    assert t.power_w == pytest.approx(power)
    assert (t.power_from, t.power_mode, t.clocks_locked) == (source, mode, locked)
    assert t.gpu_mhz == pytest.approx(gpu_mhz)
    assert t.throttled is False
    assert t.throttled_by == ()


@pytest.mark.parametrize("board", JETSONS)
def test_a_jetson_tells_its_fan_its_load_and_its_temperatures(tmp_path: Path, board: str) -> None:
    t = read_telemetry(make(tmp_path, board))
    assert t.fan == pytest.approx(0.2)
    # The unit of Thor's file is not documented.
    assert t.gpu_util == (None if board == "thor" else pytest.approx(0.345))
    assert t.temperatures_c["cpu-thermal"] in (40, 41)
    assert t.hottest_c == max(c for c in t.temperatures_c.values() if c is not None)


def test_rails_that_are_not_connected_and_sums_of_shunts_are_no_rails(tmp_path: Path) -> None:
    assert list(read_telemetry(make(tmp_path / "agx", "agx-orin")).rails) == [
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDDQ_VDD2_1V8AO",
    ]
    assert list(read_telemetry(make(tmp_path / "nano", "orin-nano")).rails) == [
        "VDD_IN",
        "VDD_CPU_GPU_CV",
        "VDD_SOC",
    ]


def test_a_board_of_unknown_rails_has_rails_and_no_total(tmp_path: Path) -> None:
    t = read_telemetry(
        write(
            tmp_path,
            monitor("hwmon0", "ina3221", {"VDD_NEW": (5000, 1000), "VDD_OTHER": (5000, 2000)}),
        )
    )
    assert t.rails == {"VDD_NEW": 5.0, "VDD_OTHER": 10.0}
    assert (t.power_w, t.power_from) == (None, None)


def test_a_thor_carrier_without_its_input_monitor_has_no_total(tmp_path: Path) -> None:
    make(tmp_path, "thor")
    (tmp_path / "sys/class/hwmon/hwmon6/name").unlink()
    t = read_telemetry(tmp_path)
    assert t.rails["VDD_GPU"] == pytest.approx(
        -0.397, abs=1e-3
    )  # an offset of the monitor, as measured
    assert (t.power_w, t.power_from) == (None, None)


def test_a_rail_with_an_error_is_none_and_so_is_its_sum(
    tmp_path: Path,
) -> None:
    make(tmp_path, "agx-orin")
    current = tmp_path / "sys/class/hwmon/hwmon3/curr2_input"
    current.unlink()
    write(tmp_path, {"sys/class/hwmon/hwmon3/curr2_input": BROKEN})
    t = read_telemetry(tmp_path)
    assert t.rails["VDD_CPU_CV"] is None
    assert t.rails["VDD_GPU_SOC"] == pytest.approx(6.08)
    assert t.power_w is None


def test_a_sensor_that_is_off_is_none(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    write(tmp_path, {"sys/class/thermal/thermal_zone1/temp": "-256000"})
    t = read_telemetry(tmp_path)
    assert t.temperatures_c["cv0-thermal"] is None
    assert t.temperatures_c["gpu-thermal"] is None
    assert t.temperatures_c["tj-thermal"] == 48


def test_zones_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    assert read_telemetry(make(tmp_path, "desktop")).temperatures_c == {
        "acpitz": 40,
        "x86_pkg_temp": 41,
        "acpitz 2": 42,
    }


def test_the_mode_is_the_name_in_the_boards_own_table(tmp_path: Path) -> None:
    write(tmp_path, modes(0, ("15W", "25W", "MAXN_SUPER")))
    assert read_telemetry(tmp_path).power_mode == "15W"  # mode 0 is not the fastest everywhere
    assert power_modes(tmp_path) == {0: "15W", 1: "25W", 2: "MAXN_SUPER"}
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0009 fmode:cool"})
    assert read_telemetry(tmp_path).power_mode == "mode 9"
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    assert read_telemetry(tmp_path).power_mode is None


def test_clocks_are_locked_only_if_all_are(tmp_path: Path) -> None:
    make(tmp_path, "orin-nx")
    write(tmp_path, {"sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "115200"})
    assert read_telemetry(tmp_path).clocks_locked is False
    write(tmp_path, {"sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "not a number"})
    assert read_telemetry(tmp_path).clocks_locked is None


def test_thor_is_read_at_its_compute_clock_not_at_its_video_engines(tmp_path: Path) -> None:
    assert read_telemetry(make(tmp_path, "thor")).gpu_mhz == 315
    assert read_telemetry(tmp_path).memory_mhz == 4266


@pytest.mark.parametrize("board", JETSONS)
def test_an_alert_is_throttling_and_a_fan_or_a_capped_clock_is_not(
    tmp_path: Path, board: str
) -> None:
    make(tmp_path, board)
    reader = Reader(tmp_path)
    assert reader.read().throttled is False
    write(tmp_path, alerts(("cpu", "gpu"), active=("gpu",)))
    t = reader.read()
    assert (t.throttled, t.throttled_by) == (True, ("gpu-throttle-alert",))
    write(tmp_path, alerts(("cpu", "gpu")))
    assert reader.read().throttled is False


def test_counts_are_history_and_only_their_growth_is_throttling(tmp_path: Path) -> None:
    reader = Reader(make(tmp_path, "thor"))
    t = reader.read()
    assert (t.throttled, t.throttle_events["oc3 (peak current)"]) == (False, 1)
    write(tmp_path, currents(oc1=2, oc3=1))
    t = reader.read()
    assert (t.throttled, t.throttled_by) == (True, ("oc1 (under-voltage)",))
    assert reader.read().throttled is False


def test_an_x86_core_slowed_by_heat_is_throttling(tmp_path: Path) -> None:
    reader = Reader(make(tmp_path, "desktop"))
    write(tmp_path, {"sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count": "1"})
    assert reader.read().throttled_by == ("heat (cpu2)",)


def test_nothing_to_read_is_nothing_known(tmp_path: Path) -> None:
    assert read_telemetry(tmp_path) == Telemetry()


def test_a_gpu_of_another_maker_is_not_taken_for_a_jetsons(tmp_path: Path) -> None:
    write(
        tmp_path, orin_gpu("3d00000.qcom-gpu", low=1, high=2) | orin_gpu("gpu-nvd-0", low=1, high=2)
    )
    t = read_telemetry(tmp_path)
    assert (t.gpu_mhz, t.gpu_util, t.clocks_locked) == (None, None, None)


@pytest.mark.parametrize("board", BOARDS)
def test_a_reading_is_plain_data(tmp_path: Path, board: str) -> None:
    record = read_telemetry(make(tmp_path, board)).to_json()
    assert json.loads(json.dumps(record)) == record


def test_this_machine_is_read_without_a_fault_and_without_a_guess() -> None:
    t = Reader().read()
    assert json.dumps(t.to_json())
    assert (t.power_w is None) == (t.power_from is None) or t.rails
    if not Path("/var/lib/nvpmodel/status").exists():
        assert t.power_mode is None
    if not list(Path("/sys/class/thermal").glob("thermal_zone*")) and t.gpu_util is None:
        assert t.temperatures_c == {}


def test_a_reading_opens_no_more_files_than_a_second_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, opened, here = Reader(make(tmp_path, "agx-orin")), [], threading.get_ident()
    read = Path.read_text

    def counted(self: Path, *args: object, **kwargs: object) -> str:
        if threading.get_ident() == here:
            opened.append(self)
        return read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", counted)
    monkeypatch.setattr(Path, "glob", None)  # nothing is looked for again
    reader.read()
    assert len(opened) <= 60
