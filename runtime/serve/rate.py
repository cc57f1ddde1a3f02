"""How many pictures a client may send: a token bucket for each address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

MAX_ADDRESSES = 1024  # the least recent is forgotten


class RateLimit:
    """Lets an address send `rate` pictures a second, and at first as many at once; 0 is no limit.

    A rate below 1 allows one at once.
    """

    def __init__(self, rate: float) -> None:
        self._rate, self._burst = rate, max(1.0, rate)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, host: str) -> int:
        """Count a picture of an address; return 0, or the whole seconds that it must wait."""
        if not self._rate:
            return 0
        now = time.monotonic()
        left, at = self._buckets.pop(host, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1
        self._buckets[host] = (left - allowed, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) / self._rate)
