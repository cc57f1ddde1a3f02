"""What a soak watches of a process and of the machine, from /proc."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_GROWTH_MIB = 5.0
PROC = Path("/proc")


def resident_mib(process: int | str = "self") -> float:
    """Return the resident memory of a process in MiB."""
    pages = int((PROC / str(process) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@dataclass(frozen=True)
class Sample:
    """A process and the machine at one moment.

    Attributes:
        rss_mib: resident memory of the process.
        threads: of the process.
        files: open file descriptors of the process.
        cpu_s: CPU time of the process so far.
        delayed_s: how long its present threads were ready so far, and waited for a core.
        busy_s: CPU time of the whole machine so far, all cores and programs.
    """

    rss_mib: float
    threads: int
    files: int
    cpu_s: float
    delayed_s: float
    busy_s: float


def sample(process: int) -> Sample:
    """Look at a process; it must be alive, and of this user."""
    folder = PROC / str(process)
    # The name in parentheses may hold spaces: fields are counted from its end.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system, threads = int(fields[11]), int(fields[12]), int(fields[17])
    return Sample(
        resident_mib(process),
        threads,
        len(list((folder / "fd").iterdir())),
        (user + system) / _ticks(),
        _delayed_s(folder),
        _busy_s(),
    )


def autogroup() -> str | None:
    """Return the scheduling group of this session and its priority, where the kernel has them."""
    path = PROC / "self/autogroup"
    return path.read_text().strip() if path.exists() else None


def growth(values: Sequence[float]) -> float | None:
    """Return by how much a straight line through the values rises; None for less than 5."""
    if len(values) < 5:
        return None
    line = statistics.linear_regression(range(len(values)), values)
    return float(line.slope * (len(values) - 1))


def _delayed_s(folder: Path) -> float:
    files = folder.glob("task/*/schedstat")
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


def _busy_s() -> float:
    user, nice, system, _idle, _wait, interrupts, soft, *_ = map(
        int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft) / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")
