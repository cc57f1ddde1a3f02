"""One moment after which every wait of a task ends."""

from __future__ import annotations

import time


class Deadline:
    """A moment, `seconds` from now, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._at = seconds, time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether the moment is past."""
        return time.monotonic() > self._at

    def left(self) -> float:
        """Return the seconds until then.

        Raises:
            TimeoutError: it is past.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {self.seconds:g} s")
        return left

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        time.sleep(min(seconds, self.left()))
