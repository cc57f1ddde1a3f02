"""For how long each lane is measured, and in how many blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finedge.errors import UsageError

BLOCK_S = 0.7
MIN_BLOCKS = 3
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Schedule:
    """Seconds of measuring and of warm-up for each lane.

    Attributes:
        duration_s: the recorded time.
        warm_up_s: the least time of the warm-up before the first block.
        blocks: into how many blocks the recorded time is cut.
        rewarm_s: time at the start of each block that is not recorded: the lane before it left its
            own weights in the caches.
    """

    duration_s: float
    warm_up_s: float
    blocks: int
    rewarm_s: float

    @property
    def block_s(self) -> float:
        """The recorded seconds of a block."""
        return self.duration_s / self.blocks


def schedule(duration: str) -> Schedule:
    """Plan a run: at least 3 blocks of at most 0.7 s; a warm-up of a fifth, at most 2 s."""
    seconds = parse_duration(duration)
    blocks = max(MIN_BLOCKS, math.ceil(seconds / BLOCK_S))
    return Schedule(seconds, min(2.0, seconds / 5), blocks, min(0.05, seconds / blocks / 10))


def parse_duration(text: str) -> float:
    """Return the seconds of `10s`, `500ms`, `2m`, `1h` or a bare number of seconds.

    >>> parse_duration("500ms")
    0.5
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        seconds = float(number) * UNITS[text[len(number) :].strip() or "s"]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f"duration '{text}'", expected="a time such as 10s, 500ms or 2m")
    return seconds
