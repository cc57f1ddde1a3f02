"""Delivers notices in a thread of its own, after a bounded queue, and tries again.

Nothing here ends the run: a broker that is away, a full disk or a refused password is said once,
when it begins, and once when it is over.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from finedge.errors import SystemProblem
from finedge.runtime.events.notice import Counts, Notice, Problem
from finedge.runtime.sinks import Result

log = logging.getLogger(__name__)

# Notices. A busy feeder has some hundred visits a day: a broker may be down for days.
SIZE = 2000
# Of the crops in a queue. 2000 crops of 300 pixels take 30 MiB; the sinks share them.
MAX_BYTES = 128 * 2**20
CLOSE_S = 5.0  # for all sinks together: `finedge classify` ends 10 s after a signal


class Undelivered(SystemProblem):
    """A notice did not arrive.

    Args:
        what: as of every error; "" where the sink said it itself.
        expected: as of every error.
        fix: as of every error.
        again: whether a later try may succeed.
        after_s: when, if the receiver said so.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str = "",
        fix: str = "",
        again: bool = True,
        after_s: float | None = None,
    ) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.again, self.after_s = again, after_s


@dataclass(frozen=True)
class Pauses:
    """Between tries, in s: `first`, then each twice as long, at most `longest`."""

    first: float = 1.0
    longest: float = 60.0

    def after(self, tries: int) -> float:
        """Return the pause after the try number `tries`, from 1."""
        return min(self.longest, self.first * 2.0 ** min(tries - 1, 30))


class Outbox:
    """A sink around a function that delivers one notice.

    The queue is first in, first out. A full one drops its oldest notice, and counts it as lost. Its
    crops take at most `MAX_BYTES`.

    Args:
        name: the sink's option, without the dashes.
        deliver: delivers a notice, or raises `Undelivered`. It runs in the outbox's thread.
        release: frees what `deliver` uses, in the same thread, at the end.
        size: how many notices wait at most.
        pauses: between tries.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Notice], None],
        *,
        release: Callable[[], None] = lambda: None,
        size: int = SIZE,
        pauses: Pauses = Pauses(),
    ) -> None:
        self.name, self.size, self.pauses = name, size, pauses
        self._deliver, self._release = deliver, release
        self._queue: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._delivered, self._lost, self._busy, self._bytes = 0, 0, 0, 0
        self._until: float | None = None  # the end of the last tries, once it closes
        self._problem = Problem()  # what was said and is not over
        self._overflowed = False
        self._thread = threading.Thread(target=self._run, name=f"finedge-{name}", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> Counts:
        """What became of the notices so far."""
        with self._changed:
            counts = Counts(self._delivered, self._lost, len(self._queue) + self._busy)
        return self._problem.shown(counts)

    @property
    def closing(self) -> bool:
        """Whether no more notices come."""
        return self._until is not None

    @property
    def left_s(self) -> float:
        """How long it may still try; infinite before the end."""
        return math.inf if self._until is None else self._until - time.monotonic()

    @property
    def newest(self) -> bool:
        """Whether nothing waits after the notice that is being delivered."""
        return not self._queue

    def see(self, result: Result) -> None:
        """Do nothing: only notices are delivered."""

    def write(self, notice: Notice) -> None:
        """Queue a notice."""
        with self._changed:
            while self._queue and (
                len(self._queue) >= self.size or self._bytes + len(notice.jpeg) > MAX_BYTES
            ):
                self._take()
                self._lost += 1
                self._say_overflow()
            self._queue.append(notice)
            self._bytes += len(notice.jpeg)
            self._changed.notify()

    def finish(self) -> None:
        """Deliver what waits within `CLOSE_S`, then end."""
        with self._changed:
            if self._until is None:
                self._until = time.monotonic() + CLOSE_S
            self._changed.notify()

    def close(self) -> None:
        """Wait for the end, and say how many notices were lost."""
        self.finish()
        self._thread.join(max(0.1, (self._until or 0.0) - time.monotonic() + 0.5))
        counts = self.counts
        lost = counts.lost + counts.waiting
        if lost:
            log.warning("--%s: %d events were lost, %d arrived", self.name, lost, counts.delivered)

    def _say_overflow(self) -> None:
        if not self._overflowed:
            log.warning(
                "--%s: %d events wait, as many as may: the oldest are dropped, and counted",
                self.name,
                len(self._queue) + 1,
            )
        self._overflowed = True

    def _run(self) -> None:
        try:
            while (notice := self._next()) is not None:
                arrived = self._tried(notice)
                with self._changed:
                    self._busy = 0
                    self._delivered += arrived
                    self._lost += not arrived
        finally:
            self._release()

    def _next(self) -> Notice | None:
        """Wait for a notice; None at the end."""
        with self._changed:
            while not self._queue and self._until is None:
                self._changed.wait()
            if not self._queue or self.left_s < 0:
                return None
            self._busy = 1
            return self._take()

    def _take(self) -> Notice:
        notice = self._queue.popleft()
        self._bytes -= len(notice.jpeg)
        return notice

    def _tried(self, notice: Notice) -> bool:
        """Deliver a notice, with as many tries as it takes; return whether it arrived."""
        tries = 0
        while True:
            tries += 1
            try:
                self._deliver(notice)
            except Undelivered as error:
                self._say(error)
                pause_s = self.pauses.after(tries)
                if error.after_s is not None:
                    pause_s = max(self.pauses.first, error.after_s)
                if not error.again or not self._wait(pause_s):
                    return False
            except Exception as error:  # a bug here must not end the stream
                log.error("--%s: an event is lost: %r", self.name, error, exc_info=error)
                return False
            else:
                self._say_over()
                return True

    def _wait(self, seconds: float) -> bool:
        """Wait between two tries; False where there is no time for another one."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0:
                if self._until is not None:
                    # One more second is all that a receiver gets at the end.
                    if time.monotonic() + min(left, 1.0) > self._until:
                        return False
                    until = min(until, time.monotonic() + 1.0)
                    left = until - time.monotonic()
                self._changed.wait(max(0.0, left))
                if self._until is not None:
                    break
        return self._until is None or time.monotonic() < self._until

    def _say(self, error: Undelivered) -> None:
        if not error.what or error.what == self._problem.text:
            return
        self._problem.begin(error.what)
        log.warning("--%s: %s", self.name, error)

    def _say_over(self) -> None:
        if self._problem.text:
            log.info("--%s works again", self.name)
        self._problem.end()
        self._overflowed = False
