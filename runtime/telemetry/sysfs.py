"""Small files of /sys and /proc: a file that is missing, or a sensor that answers with an error, is no value."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Return what a file says without the spaces and zero bytes around it, or "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip().strip("\0")
    except OSError:  # also EAGAIN of a sensor that is switched off, and EACCES
        return ""


def number(path: Path) -> float | None:
    """Return the number a file holds, or None where there is none."""
    try:
        return float(text(path))
    except ValueError:
        return None
