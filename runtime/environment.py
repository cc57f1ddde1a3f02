"""The machine facts that go beside every number: what ran it, how fast it was clocked, and who else was running."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from finedge.runtime.ort.int8_products import int8_products
from finedge.runtime.telemetry import read_telemetry
from finedge.runtime.telemetry.cpu import cpu_flags, cpu_name
from finedge.runtime.telemetry.sysfs import number, text
from finedge.runtime.telemetry.thermal import celsius

UNKNOWN = "unknown"
TOLD = (
    "power_mode",
    "clocks_locked",
    "gpu_mhz",
    "memory_mhz",
    "power_w",
    "power_from",
    "throttled",
)
PACKAGES = ("numpy", "onnx", "onnxruntime", "cv2", "finedge")


def environment(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts as plain data; what cannot be read is the word "unknown", never a guess.

    Clocks are in MHz by core, temperatures in degrees Celsius by sensor, `load_average` over 1, 5 and 15 minutes, `throttle_count` the
    times any core was slowed by heat since boot. Power mode, locked clocks, GPU and memory clock, power in W and throttling are those of
    `finedge.runtime.telemetry`. `root` is where /proc and /sys are found (tests give a made tree).
    """
    now = read_telemetry(root).to_json()
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
        **{name: UNKNOWN if now[name] is None else now[name] for name in TOLD},
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "memory_mib": memory_mib(root),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def onnxruntime_int8() -> str:
    """Return the kind of INT8 products here (`int8_products`), or why it is unknown."""
    try:
        return int8_products()
    except ImportError as error:
        return f"{UNKNOWN}: {error}"


def governor(root: Path = Path("/")) -> str:
    """Return the frequency governor of the cores, several joined by commas."""
    names = {
        text(p)
        for p in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    return ",".join(sorted(names - {""})) or UNKNOWN


def clocks_mhz(root: Path = Path("/")) -> dict[str, float] | str:
    """Return the present clock of each core in MHz: from cpufreq, else from /proc/cpuinfo (a virtual machine's nominal clock)."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = {p.parts[-3].removeprefix("cpu"): number(p) for p in files}
    clocks = {core: value / 1e3 for core, value in kilohertz.items() if value is not None}
    if not clocks:
        lines = [line.partition(":") for line in text(root / "proc/cpuinfo").splitlines()]
        clocks = {
            str(core): float(value)
            for core, value in enumerate(v for k, _, v in lines if k.strip() == "cpu MHz")
        }
    return dict(sorted(clocks.items(), key=lambda item: int(item[0]))) or UNKNOWN


def temperatures_c(root: Path = Path("/")) -> dict[str, float] | str:
    """Return the temperature of each thermal zone in degrees Celsius; a zone that is switched off is left out."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    found = {f"{zone.name} {text(zone / 'type')}".strip(): celsius(zone / "temp") for zone in zones}
    return {name: value for name, value in found.items() if value is not None} or UNKNOWN


def throttle_count(root: Path = Path("/")) -> int | str:
    """Return how often the cores were slowed by heat since boot, summed."""
    counts = [
        number(p)
        for p in (root / "sys/devices/system/cpu").glob(
            "cpu[0-9]*/thermal_throttle/core_throttle_count"
        )
    ]
    known = [int(c) for c in counts if c is not None]
    return sum(known) if known else UNKNOWN


def memory_mib(root: Path = Path("/")) -> dict[str, int] | str:
    """Return total and available memory in MiB."""
    rows = dict(
        line.split(":", 1) for line in text(root / "proc/meminfo").splitlines() if ":" in line
    )
    wanted = {"total": "MemTotal", "available": "MemAvailable"}
    return {
        name: int(rows[key].split()[0]) // 1024 for name, key in wanted.items() if key in rows
    } or UNKNOWN


def version(package: str) -> str:
    """Return the version of an importable package, or why there is none."""
    try:
        return str(importlib.import_module(package).__version__)
    except ImportError as error:  # a missing package, or a missing library that it links
        return f"missing: {error}"


def commit() -> str:
    """Return the git commit this code is from (`-dirty` if files were changed), or "unknown" outside a checkout."""
    here = Path(__file__).resolve()
    # An installed copy may lie in somebody else's repository, whose commit says nothing about it.
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return UNKNOWN
    return _git(here, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40") or UNKNOWN


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
