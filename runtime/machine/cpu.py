"""What the CPU is: its name, its instruction sets, and the cores that this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finedge.runtime.machine.sysfs import text

CPUINFO = Path("/proc/cpuinfo")
# The instructions that decide how fast INT8 and FP16 run, as Linux names them: x86, then ARM.
FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
    "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
# Those that NumPy asks the CPU itself about, as NumPy names them.
NUMPY_NAMES = {
    "avx2": "AVX2", "avx512f": "AVX512F", "avx512_vnni": "AVX512VNNI",
    "avx512_bf16": "AVX512BF16", "avx512_fp16": "AVX512FP16",
    "asimd": "ASIMD", "asimdhp": "ASIMDHP", "asimddp": "ASIMDDP", "sve": "SVE",
}  # fmt: skip


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return the CPU's name, or its architecture where the system does not give one (ARM)."""
    return _field("model name", cpuinfo) or platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """Return those of `FLAGS` that this process may use, or that another `cpuinfo` lists.

    The CPU itself is asked: Windows and macOS have no list, and under emulation the list is the
    host's.
    """
    listed = listed_flags(cpuinfo)
    if cpuinfo != CPUINFO:
        return listed
    detected = _detected()
    usable = {flag for flag, present in detected.items() if present}
    # The rest of the list is believed where the list agrees with the CPU.
    agrees = detected.keys() & set(listed) == usable
    return [flag for flag in FLAGS if flag in usable or (agrees and flag in listed)]


def listed_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """Return those of `FLAGS` that the system lists."""
    words = (_field("flags", cpuinfo) or _field("Features", cpuinfo)).split()
    return [flag for flag in FLAGS if flag in words]


def _detected() -> dict[str, bool]:
    """Return what NumPy read by CPUID, or by ARM's HWCAP; nothing where it hides that."""
    core: Any = getattr(np, "_core", None) or getattr(np, "core", None)  # NumPy 2, NumPy 1
    module = getattr(core, "_multiarray_umath", None)
    features: Mapping[str, bool] = getattr(module, "__cpu_features__", {})
    return {flag: features[name] for flag, name in NUMPY_NAMES.items() if name in features}


def owned_cores() -> int:
    """Return how many physical cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        logical = list(os.sched_getaffinity(0))
    else:
        logical = list(range(os.cpu_count() or 1))
    return len({_core(cpu) for cpu in logical})


def _core(cpu: int) -> str:
    """Name the physical core of a logical CPU: threads of one core list the same siblings."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    return text(topology / "thread_siblings_list") or str(cpu)


def _field(name: str, cpuinfo: Path) -> str:
    """Return the first value of a field of /proc/cpuinfo, or ''."""
    for line in text(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
