"""Small files of /sys and /proc.

A file that is missing, or a sensor that answers with an error, gives no value.
"""

from __future__ import annotations

from pathlib import Path

UNKNOWN = "unknown"  # stands in records for what cannot be read


def text(path: Path) -> str:
    """Return a file's text without spaces and zero bytes around it, "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip().strip("\0")
    except OSError:  # also EAGAIN of a sensor that is switched off, and EACCES
        return ""


def number(path: Path) -> float | None:
    """Return the number that a file holds, or None where there is none."""
    try:
        return float(text(path))
    except ValueError:
        return None
