"""The last seconds of a source's frames as JPEGs, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from finedge.runtime.sinks import Result
from finedge.runtime.sinks.jpeg import to_jpeg

MIB = 2**20


@dataclass
class FrameRing:
    """Keeps results for `seconds`, and at most `max_bytes`; the oldest go first.

    A frame is kept at most 960 pixels a side.
    """

    seconds: float
    max_bytes: int = 64 * MIB
    _kept: deque[tuple[Result, bytes]] = field(default_factory=deque)
    _bytes: int = 0

    def add(self, result: Result) -> None:
        """Keep a result that has a frame and a time."""
        if result.image is None or result.seconds is None:
            return
        jpeg = to_jpeg(result.image)
        # The region's pixels are those of the whole frame.
        record = {name: value for name, value in result.record.items() if name != "roi"}
        self._kept.append((replace(result, image=None, record=record), jpeg))
        self._bytes += len(jpeg)
        while self._kept and (self._too_old(result.seconds) or self._bytes > self.max_bytes):
            self._bytes -= len(self._kept.popleft()[1])

    def since(self, seconds: float) -> Iterator[Result]:
        """Yield the results from a moment of the source's clock on, with their frames."""
        for result, jpeg in self._kept:
            if result.seconds is None or result.seconds < seconds:
                continue
            bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            if bgr is not None:
                rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                yield replace(result, image=np.asarray(rgb, np.uint8))

    @property
    def newest_s(self) -> float | None:
        """The time of the newest frame on the source's clock."""
        return self._kept[-1][0].seconds if self._kept else None

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self._bytes

    def _too_old(self, now: float) -> bool:
        first = self._kept[0][0].seconds
        # A source that begins again has a clock that begins again.
        return first is not None and not 0 <= now - first <= self.seconds
