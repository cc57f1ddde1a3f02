"""What is known of each camera now, from its events: who is there, and how many came today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from finedge.runtime.events.event import Event

MAX_LABELS = 200  # of a day; more are counted, and not named


@dataclass
class CameraState:
    """The visits of one camera on one day of local time."""

    open: set[str] = field(default_factory=set)
    day: date = field(default_factory=lambda: datetime.now().astimezone().date())
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, event: Event) -> None:
        """Count an event; a visit counts on the day on which it ends."""
        if event.kind == "started":
            self.open.add(event.id)
            return
        self.open.discard(event.id)
        self.turn(datetime.fromtimestamp(event.ended_at).astimezone().date())
        name = event.label if event.label in self.labels or len(self.labels) < MAX_LABELS else "…"
        self.labels[name] += 1

    def turn(self, day: date) -> bool:
        """Begin another day; return whether it is another one."""
        if day == self.day:
            return False
        self.day, self.labels = day, Counter()
        return True

    def today(self) -> dict[str, Any]:
        """Return the visits of the day, and those of each label."""
        return {
            "day": self.day.isoformat(),
            "visits": self.labels.total(),
            "labels": dict(self.labels.most_common()),
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Add what an earlier run counted on the same day; anything else is ignored."""
        labels = record.get("labels")
        if record.get("day") != self.day.isoformat() or not isinstance(labels, Mapping):
            return
        counts = {str(k): v for k, v in labels.items() if type(v) is int and 0 < v < 10**9}
        self.labels.update(dict(list(counts.items())[:MAX_LABELS]))
