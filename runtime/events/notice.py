"""An event as the sinks keep it: its best crop is a JPEG, so that a long queue stays small."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from finedge.runtime.events.event import Event
from finedge.runtime.sinks import Result
from finedge.runtime.sinks.jpeg import to_jpeg

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Notice:
    """An event without the pixels of its crop.

    Attributes:
        event: its `crop` is empty: the crop is often a view that keeps a whole frame in memory.
        jpeg: the best crop, at most 960 pixels a side; empty for a crop without pixels.
    """

    event: Event
    jpeg: bytes

    @classmethod
    def of(cls, event: Event) -> Notice:
        """Encode the crop of an event."""
        jpeg = to_jpeg(event.crop) if event.crop.size else b""
        return cls(replace(event, crop=NO_PIXELS), jpeg)

    @property
    def key(self) -> str:
        """What makes it one delivery: the same event sent again has the same key."""
        return f"{self.event.id}-{self.event.kind}"


@dataclass(frozen=True)
class Counts:
    """What became of the notices of a sink.

    Attributes:
        delivered: those that arrived.
        lost: those that were dropped or refused.
        waiting: those in its queue.
        problem: what is wrong now, in words; "" where nothing is.
        problem_s: for how long, in s.
    """

    delivered: int = 0
    lost: int = 0
    waiting: int = 0
    problem: str = field(default="", compare=False)
    problem_s: float = field(default=0.0, compare=False)


class Problem:
    """What is wrong with a sink now, and since when. Any thread may read it."""

    def __init__(self) -> None:
        self._now: tuple[str, float] | None = None  # the words, and when it began

    @property
    def text(self) -> str:
        """The newest words; "" where nothing is wrong."""
        now = self._now
        return "" if now is None else now[0]

    def begin(self, text: str) -> None:
        """Take a problem. Other words for the same trouble do not begin it again."""
        began = time.monotonic() if self._now is None else self._now[1]
        self._now = text, began

    def end(self) -> None:
        """Nothing is wrong any more."""
        self._now = None

    def shown(self, counts: Counts) -> Counts:
        """Return the counts with this problem, if there is one."""
        now = self._now
        if now is None:
            return counts
        return replace(counts, problem=now[0], problem_s=time.monotonic() - now[1])


class NoticeSink(Protocol):
    """Takes notices and results, one after another, from one thread; no call waits."""

    @property
    def name(self) -> str:
        """Its option, without the dashes."""

    def see(self, result: Result) -> None:
        """Look at a result of the stream, before the notices that follow from it."""

    def write(self, notice: Notice) -> None:
        """Take the next notice."""

    def finish(self) -> None:
        """Take no more, and begin to end."""

    def close(self) -> None:
        """Wait for the end, in bounded time."""

    @property
    def counts(self) -> Counts:
        """What became of the notices so far."""
