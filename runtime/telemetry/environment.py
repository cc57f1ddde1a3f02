"""The machine facts beside every result: hardware, clocks, and the load of other programs."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from finedge.errors import FinedgeError, SystemProblem
from finedge.runtime.machine.cpu import cpu_flags, cpu_name
from finedge.runtime.machine.memory import memory_mib
from finedge.runtime.machine.packages import failure_text, package_version
from finedge.runtime.machine.sysfs import UNKNOWN, number, text
from finedge.runtime.ort.int8_products import int8_products
from finedge.runtime.telemetry.reader import read_telemetry
from finedge.runtime.telemetry.thermal import celsius

SENSORS = (
    "power_mode",
    "clocks_locked",
    "gpu_mhz",
    "memory_mhz",
    "power_w",
    "power_from",
    "throttled",
)
PACKAGES = ("numpy", "onnx", "onnxruntime", "cv2", "finedge")
CPUS = Path("sys/devices/system/cpu")


def environment(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts as plain data; what cannot be read is the word "unknown", never a guess.

    Clocks are in MHz by core, temperatures in degrees Celsius by sensor. `load_average` is over 1,
    5 and 15 minutes. `throttle_count` is how often heat slowed any core since boot. Power mode,
    locked clocks, GPU and memory clock, power in W and throttling are those of `read_telemetry`.

    Args:
        root: where /proc and /sys are; tests give a tree of their own.
    """
    sensors = read_telemetry(root).to_json()
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(root / "proc/cpuinfo"),
        "cpu_flags": cpu_flags(root / "proc/cpuinfo"),
        "int8_products": onnxruntime_int8(),
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else UNKNOWN,
        "governor": governor(root),
        "clocks_mhz": clocks_mhz(root),
        "temperature_c": temperatures_c(root),
        "throttle_count": throttle_count(root),
        **{name: UNKNOWN if sensors[name] is None else sensors[name] for name in SENSORS},
        "load_average": load_average(),
        "memory_mib": memory_mib(root),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def onnxruntime_int8() -> str:
    """Return the kind of INT8 products (`int8_products`), or why it is unknown."""
    try:
        return int8_products()
    except FinedgeError:  # a wrong FINEDGE_CPU_INT8
        raise
    except ImportError as error:
        return f"{UNKNOWN}: {error}"
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        return f"{UNKNOWN}: {failure_text(error)}"


def governor(root: Path = Path("/")) -> str:
    """Return the frequency governor of the cores, several joined by commas."""
    names = {text(path) for path in (root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ",".join(sorted(names - {""})) or UNKNOWN


def clocks_mhz(root: Path = Path("/")) -> dict[str, float] | str:
    """Return the present clock of each core in MHz.

    It is read from cpufreq, else from /proc/cpuinfo (a virtual machine's nominal clock).
    """
    files = (root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = {path.parts[-3].removeprefix("cpu"): number(path) for path in files}
    clocks = {core: value / 1e3 for core, value in kilohertz.items() if value is not None}
    clocks = clocks or _nominal_clocks(root)
    return dict(sorted(clocks.items(), key=lambda item: int(item[0]))) or UNKNOWN


def _nominal_clocks(root: Path) -> dict[str, float]:
    lines = (line.partition(":") for line in text(root / "proc/cpuinfo").splitlines())
    values = [value for name, _, value in lines if name.strip() == "cpu MHz"]
    return {str(core): float(value) for core, value in enumerate(values)}


def temperatures_c(root: Path = Path("/")) -> dict[str, float] | str:
    """Return the temperature of each active thermal zone in degrees Celsius."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    degrees = {f"{z.name} {text(z / 'type')}".strip(): celsius(z / "temp") for z in zones}
    return {name: value for name, value in degrees.items() if value is not None} or UNKNOWN


def throttle_count(root: Path = Path("/")) -> int | str:
    """Return how often heat slowed the cores since boot, summed."""
    files = (root / CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [int(count) for count in map(number, files) if count is not None]
    return sum(counts) if counts else UNKNOWN


def load_average() -> list[float] | str:
    """Return how many programs ran or waited for a core, over 1, 5 and 15 minutes."""
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (OSError, AttributeError):  # no /proc/loadavg; Windows
        return UNKNOWN


def version(package: str) -> str:
    """Return the version of an importable package, or why there is none."""
    try:
        return package_version(package)
    except SystemProblem as error:
        return f"missing: {error.__cause__ or error.what}"


def commit() -> str:
    """Return the git commit of this code, or "unknown" outside a checkout.

    It ends with `-dirty` if files were changed.
    """
    file = Path(__file__).resolve()
    # An installed copy may lie in somebody else's repository, whose commit says nothing about it.
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return UNKNOWN
    return _git(file, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40") or UNKNOWN


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(file.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
