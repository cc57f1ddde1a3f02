from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finedge.runtime.machine.memory import memory_mib
from finedge.runtime.machine.sysfs import UNKNOWN
from finedge.runtime.telemetry import environment as module
from finedge.runtime.telemetry.environment import (
    SENSORS,
    clocks_mhz,
    commit,
    environment,
    governor,
    temperatures_c,
    throttle_count,
    version,
)
from tests.jetson.boards.trees import make


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A made /proc and /sys of an ARM board with eleven cores, of which two are read."""
    for core, clock in ((0, 1_510_400), (10, 729_600)):
        folder = f"sys/devices/system/cpu/cpu{core}"
        write(tmp_path, f"{folder}/cpufreq/scaling_governor", "schedutil\n")
        write(tmp_path, f"{folder}/cpufreq/scaling_cur_freq", f"{clock}\n")
        write(tmp_path, f"{folder}/thermal_throttle/core_throttle_count", "3\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "48250\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/type", "switched-off\n")
    write(
        tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd evtstrm asimdhp asimddp\n"
    )
    write(
        tmp_path,
        "proc/meminfo",
        "MemTotal:        7802236 kB\nMemFree: 1 kB\nMemAvailable:    5242880 kB\n",
    )
    return tmp_path


def test_a_board_is_read_from_its_files(machine: Path) -> None:
    assert governor(machine) == "schedutil"
    assert list(clocks_mhz(machine).items()) == [("0", 1510.4), ("10", 729.6)]
    assert temperatures_c(machine) == {"thermal_zone0 cpu-thermal": 48.25}
    assert throttle_count(machine) == 6
    assert environment(machine)["cpu_flags"] == ["asimd", "asimdhp", "asimddp"]
    assert memory_mib(machine) == {"total": 7619, "available": 5120}


def test_what_cannot_be_read_is_unknown_and_never_a_guess(tmp_path: Path) -> None:
    facts = environment(tmp_path)
    assert {
        facts[k]
        for k in (
            "governor",
            "clocks_mhz",
            "temperature_c",
            "throttle_count",
            "memory_mib",
            *SENSORS,
        )
    } == {UNKNOWN}
    assert facts["cpu_flags"] == []


def test_a_board_reports_power_mode_clocks_and_throttling(
    tmp_path: Path,
) -> None:
    facts = environment(make(tmp_path, "orin-nx"))
    assert (facts["power_mode"], facts["clocks_locked"], facts["gpu_mhz"], facts["throttled"]) == (
        "MAXN",
        True,
        918,
        False,
    )
    assert (facts["power_w"], facts["power_from"], facts["memory_mhz"]) == (
        15.55,
        "VDD_IN",
        UNKNOWN,
    )


def test_clocks_fall_back_to_cpuinfo(tmp_path: Path) -> None:
    write(
        tmp_path,
        "proc/cpuinfo",
        "processor: 0\ncpu MHz\t\t: 2100.000\nprocessor: 1\ncpu MHz\t\t: 1800.5\n",
    )
    assert clocks_mhz(tmp_path) == {"0": 2100.0, "1": 1800.5}


def test_this_machine_is_described_as_plain_data() -> None:
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cores"] == sorted(os.sched_getaffinity(0))
    assert facts["python"] == platform.python_version()
    assert facts["versions"]["onnxruntime"][0].isdigit()
    assert facts["cpu"]
    assert facts["int8_products"] in ("exact", "saturating")


def test_without_onnx_runtime_it_is_unknown_what_its_products_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> str:
        raise ModuleNotFoundError("No module named 'onnxruntime'")

    monkeypatch.setattr(module, "int8_products", missing)
    assert environment()["int8_products"] == "unknown: No module named 'onnxruntime'"


def test_a_missing_package_is_said_to_be_missing() -> None:
    assert version("no_such_package").startswith("missing:")


def test_the_commit_is_never_that_of_a_repository_around_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    copy = tmp_path / "environment.py"
    shutil.copy(module.__file__, copy)
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "their work"], check=True)
    monkeypatch.setattr(module, "__file__", str(copy))
    assert commit() == UNKNOWN
    subprocess.run([*git, "add", "environment.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert commit() == head
    copy.write_text("# changed\n")
    assert commit() == f"{head}-dirty"


def test_it_can_be_asked_where_cv2_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None; "
        "from finedge.runtime.telemetry.environment import environment; "
        "print(environment()['versions']['cv2'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("missing:")
