"""When a frame was captured, in ns on the monotonic clock, from the best time stamp there is."""

from __future__ import annotations

MAX_DELAY_NS = 10_000_000_000  # a time stamp older than 10 s belongs to another clock
CLOCK_ERROR = 0.05  # of the elapsed time: the clocks of cheap cameras are that wrong


def trusted_stamp(stamp_ns: int, now_ns: int) -> int:
    """Return a time stamp if it can be on the monotonic clock, else `now_ns`."""
    return stamp_ns if 0 <= now_ns - stamp_ns <= MAX_DELAY_NS else now_ns


def driver_time(position_ms: float, now_ns: int) -> int:
    """Return the capture time of a V4L2 frame: the time stamp of the driver, where it is usable.

    Args:
        position_ms: the time stamp of the driver, in ms.
        now_ns: now, on the monotonic clock.
    """
    return trusted_stamp(round(position_ms * 1e6), now_ns)


def arrival_time(position_ms: float, now_ns: int) -> int:
    """Return `now_ns`: the best time there is for a stream whose time stamps mean nothing.

    Args:
        position_ms: not used.
        now_ns: now, on the monotonic clock.
    """
    return now_ns


class RtpClock:
    """The capture time of RTSP frames that waited in network buffers, from the sender's stamps.

    The frame with the shortest way so far counts as one that came without delay. A frame that took
    longer is older by the difference. A delay that persists is forgotten at `CLOCK_ERROR` of the
    elapsed time, because the sender's clock may simply be slow.
    """

    def __init__(self) -> None:
        self._min_offset_ms, self._last_ms = float("inf"), 0.0

    def __call__(self, position_ms: float, now_ns: int) -> int:
        """Return the capture time in ns on the monotonic clock; never after `now_ns`.

        Args:
            position_ms: the sender's time stamp, in ms.
            now_ns: now, on the monotonic clock.
        """
        now_ms = now_ns / 1e6
        offset = now_ms - position_ms
        min_offset = self._min_offset_ms + CLOCK_ERROR * (now_ms - self._last_ms)
        clock_was_set = (offset - min_offset) * 1e6 > MAX_DELAY_NS
        self._min_offset_ms = offset if clock_was_set else min(min_offset, offset)
        self._last_ms = now_ms
        return now_ns - round((offset - self._min_offset_ms) * 1e6)
