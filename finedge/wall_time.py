"""The wall time of captures and events, and its text: UTC with milliseconds and a Z.

A capture is noted on the monotonic clock, which nothing sets. Its wall time is by the clock as it
is set when it is asked for: a board without a battery learns the time of day from the network,
after the run has begun.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone


def capture_time(captured_ns: int) -> float:
    """Return the wall time of a capture (`time.monotonic_ns`), in s since 1970."""
    return (time.time_ns() - (time.monotonic_ns() - captured_ns)) / 1e9


def time_text(seconds: float) -> str:
    """Return a time in s since 1970 as text.

    Examples:
        >>> time_text(0.25)
        '1970-01-01T00:00:00.250Z'
    """
    at = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read a time as `time_text` writes it, or any other of ISO 8601; without a zone it is local.

    Raises:
        ValueError: the text is no time.

    Examples:
        >>> parse_time("1970-01-01T00:00:00.250Z").timestamp()
        0.25
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
