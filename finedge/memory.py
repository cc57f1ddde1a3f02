"""The memory of this machine."""

from __future__ import annotations

from pathlib import Path

_KEYS = {"total": "MemTotal", "available": "MemAvailable"}


def memory_mib(root: Path = Path("/")) -> dict[str, int] | str:
    """Return the `total` and `available` memory in MiB, or "unknown" without Linux's /proc."""
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return "unknown"
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    sizes = {name: rows[key].split()[0] for name, key in _KEYS.items() if key in rows}
    return {name: int(kibibytes) // 1024 for name, kibibytes in sizes.items()} or "unknown"
