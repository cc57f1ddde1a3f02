"""The newest visits, for the page's timeline: their records, best crops and today's counts."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from finedge.runtime.events.event import Event
from finedge.runtime.sinks.jpeg import to_jpeg
from finedge.wall_time import parse_time

MAX_VISITS = 200
CROP_SIDE = 480  # pixels; a crop of a visit is about 20 kB
SCHEMA = 1


@dataclass(frozen=True)
class Visit:
    """What the page shows of a visit.

    `number` grows with every change of any visit. `record` is the line of its newest event, with
    `stream` and `number`, and without the path of its clip.
    """

    number: int
    record: dict[str, Any]
    crop: bytes


class VisitLog:
    """An `EventSink` that keeps the newest `MAX_VISITS` visits in memory; any thread may read it.

    A crop is encoded when its event comes: the pixels of an event are often a view that keeps a
    whole frame in memory.

    Args:
        today: the local date, for the counts.
    """

    def __init__(self, *, today: Callable[[], date] = date.today) -> None:
        # Tells a page that the program was started again: its numbers begin again.
        self._run = secrets.token_hex(8)
        self._today, self._day = today, today()
        self._lock = threading.Lock()
        self._number = 0
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._counts: Counter[tuple[int, str]] = Counter()

    def write(self, event: Event) -> None:
        """Take the start or the end of a visit; it never waits for a browser."""
        record = event.record() | {"stream": event.stream}
        del record["clip"]
        crop = to_jpeg(event.crop, side=CROP_SIDE)
        with self._lock:
            self._number += 1
            earlier = self._visits.get(event.id)
            self._count(event, earlier)
            # An end stays in the place of its start: the newest visit is the last to begin.
            self._visits[event.id] = Visit(self._number, record | {"number": self._number}, crop)
            if len(self._visits) > MAX_VISITS:
                self._visits.popitem(last=False)

    def restore(
        self,
        records: Sequence[Mapping[str, Any]],
        *,
        crop: Callable[[str], bytes | None],
        cameras: Sequence[str] = (),
    ) -> None:
        """Take visits of earlier runs, before the first event of this one.

        Args:
            records: the lines of their newest events, the newest visit first.
            crop: gives the JPEG of a visit by its id.
            cameras: the sources of this run. A visit of another source has camera -1.
        """
        with self._lock:
            for record in reversed(records[:MAX_VISITS]):
                self._number += 1
                stream = cameras.index(record["source"]) if record["source"] in cameras else -1
                own = {key: value for key, value in record.items() if key != "clip"}
                own |= {"event": "ended", "stream": stream, "number": self._number}
                began = parse_time(record["started_at"])
                if began.astimezone().date() == self._day:
                    self._counts[stream, record["label"]] += 1
                self._visits[record["id"]] = Visit(self._number, own, crop(record["id"]) or b"")

    def close(self) -> None:
        """Keep what there is: the page shows it until its server ends."""

    def to_json(self, *, after: int = 0, run: str = "") -> bytes:
        """Return the visits that changed after number `after` of a run, and today's counts.

        Of another run, all visits are returned. `today` has a list for each label and camera:
        camera, label and how many visits began today.
        """
        with self._lock:
            self._forget_yesterday()
            first = after if run == self._run else 0
            state = {
                "schema": SCHEMA,
                "run": self._run,
                "number": self._number,
                "today": [[*key, count] for key, count in self._counts.most_common()],
                "visits": [v.record for v in self._visits.values() if v.number > first],
            }
        return json.dumps(state).encode()

    def crop(self, id: str) -> bytes | None:
        """Return the best crop of a visit as a JPEG, or None where the visit is not kept."""
        with self._lock:
            visit = self._visits.get(id)
        return None if visit is None else visit.crop

    def _count(self, event: Event, earlier: Visit | None) -> None:
        """Count a visit once, by its newest label, on the day when it began."""
        self._forget_yesterday()
        if datetime.fromtimestamp(event.started_at).date() != self._day:
            return
        if earlier is not None:
            self._counts -= Counter({(event.stream, earlier.record["label"]): 1})
        elif event.kind == "ended":
            return  # its start fell out of the log, and was counted
        self._counts[event.stream, event.label] += 1

    def _forget_yesterday(self) -> None:
        if self._today() != self._day:
            self._day = self._today()
            self._counts.clear()
