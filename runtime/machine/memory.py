"""How much memory this machine has."""

from __future__ import annotations

from pathlib import Path

from finedge.runtime.machine.sysfs import UNKNOWN, text

FIELDS = {"total": "MemTotal", "available": "MemAvailable"}


def memory_mib(root: Path = Path("/")) -> dict[str, int] | str:
    """Return total and available memory in MiB, or "unknown"; `root` holds /proc."""
    lines = text(root / "proc/meminfo").splitlines()
    rows = dict(line.split(":", 1) for line in lines if ":" in line)
    memory = {
        name: int(rows[field].split()[0]) // 1024 for name, field in FIELDS.items() if field in rows
    }
    return memory or UNKNOWN
