"""What the CPU is: its name, the cores this process may use, and whether INT8 products can saturate on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "AMD64", "i686")
# Each adds four U8 x S8 products into 32 bits. Without them two products meet in 16 bits first, and saturate.
EXACT_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def is_x86() -> bool:
    """Tell whether this is an x86 machine."""
    return platform.machine() in X86


def has_exact_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether an x86 CPU multiplies U8 by S8 without saturation; False also where its flags cannot be read."""
    return bool(EXACT_INT8 & set(_field("flags", cpuinfo).split()))


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return the CPU's name, or its architecture where the system does not tell (ARM)."""
    return _field("model name", cpuinfo) or platform.processor() or platform.machine()


def owned_cores() -> int:
    """Return how many physical cores this process may run on."""
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_core(cpu) for cpu in logical})


def _core(cpu: int) -> str:
    """Name the physical core of a logical CPU: threads of one core list the same siblings."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _field(name: str, cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
