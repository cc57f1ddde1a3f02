"""How many visits began today: those of this run from their events, earlier ones from the store."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, datetime

from finedge.runtime.events.event import Event

Key = tuple[int, str]  # camera and label
MAX_COUNTED = 20_000  # visits of a day whose ids are kept in memory; older ones are only counted


class TodayCounts:
    """Visits by camera and label that began on this day of local time. Any thread may read it.

    The store is read when somebody looks: once, and again after each change of the day. Midnight is
    one. A board without a battery has another: its clock is set after the run began.

    Args:
        stored: gives id and key of all visits in the store that began on a day, those of this run
            too; None where it cannot be read now.
        today: the local date.
    """

    def __init__(
        self,
        stored: Callable[[date], Iterable[tuple[str, Key]] | None] = lambda day: (),
        *,
        today: Callable[[], date] = date.today,
    ) -> None:
        self._stored, self._today, self._day = stored, today, today()
        self._lock = threading.Lock()
        self._own: dict[str, Key] = {}  # by visit
        self._more: Counter[Key] = Counter()  # own visits whose ids were forgotten
        self._earlier: Counter[Key] | None = None  # of earlier runs, once they were read

    def write(self, event: Event) -> None:
        """Count a visit by its newest label; it never waits for the store."""
        with self._lock:
            self._turn()
            if datetime.fromtimestamp(event.started_at).date() != self._day:
                return
            self._own[event.id] = (event.stream, event.label)
            if len(self._own) > MAX_COUNTED:
                self._more[self._own.pop(next(iter(self._own)))] += 1

    def read(self) -> Counter[Key]:
        """Return the number of visits by camera and label."""
        with self._lock:
            self._turn()
            day, is_known = self._day, self._earlier is not None
        stored = None if is_known else self._stored(day)
        with self._lock:
            # A visit is written here before it is in the store. So what the store has of this run
            # is known by now.
            if stored is not None and day == self._day:
                others = Counter(key for id, key in stored if id not in self._own)
                self._earlier = others - self._more
            return Counter(self._own.values()) + self._more + (self._earlier or Counter())

    def _turn(self) -> None:
        if self._today() != self._day:
            self._day, self._earlier = self._today(), None
            self._own.clear()
            self._more.clear()
