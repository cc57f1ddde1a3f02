"""The newest visits, for the page's timeline: their records, best crops and today's counts."""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from finedge.runtime.events.event import Event
from finedge.runtime.sinks.jpeg import to_jpeg
from finedge.runtime.sinks.live.archive import Archive
from finedge.runtime.sinks.live.today import TodayCounts

MAX_VISITS = 200
CROP_SIDE = 480  # pixels; a crop of a visit is about 20 kB
SCHEMA = 1


@dataclass(frozen=True)
class Visit:
    """What the page shows of a visit.

    `number` grows with every change of any visit. `record` is the line of its newest event, with
    `stream` and `number`, and without the path of its clip. `crop` is None where the store has it.
    """

    number: int
    record: dict[str, Any]
    crop: bytes | None


class VisitLog:
    """An `EventSink` that keeps the newest `MAX_VISITS` visits in memory; any thread may read it.

    A crop is encoded when its event comes: the pixels of an event are often a view that keeps a
    whole frame in memory.

    Args:
        archive: the visits of earlier runs, which are shown first, and those that left the memory.
        today: the local date, for the counts.
    """

    def __init__(
        self, archive: Archive | None = None, *, today: Callable[[], date] = date.today
    ) -> None:
        # Tells a page that the program was started again: its numbers begin again.
        self._run = secrets.token_hex(8)
        self._archive = archive
        self._lock = threading.Lock()
        self._number = 0
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        if archive is None:
            self._today = TodayCounts(today=today)
            return
        self._today = TodayCounts(archive.began_on, today=today)
        for record in reversed(archive.visits(limit=MAX_VISITS) or []):
            self._keep(record, crop=None)

    def write(self, event: Event) -> None:
        """Take the start or the end of a visit; it never waits for a browser."""
        record = event.record() | {"stream": event.stream}
        del record["clip"]
        crop = to_jpeg(event.crop, side=CROP_SIDE) if event.crop.size else b""
        self._today.write(event)
        with self._lock:
            # An end stays in the place of its start: the newest visit is the last to begin.
            self._keep(record, crop=crop)
            if len(self._visits) > MAX_VISITS:
                self._visits.popitem(last=False)

    def close(self) -> None:
        """Keep what there is: the page shows it until its server ends."""

    def to_json(self, *, after: int = 0, run: str = "") -> bytes:
        """Return the visits that changed after number `after` of a run, and today's counts.

        Of another run, all visits are returned. `today` has a list for each label and camera:
        camera, label and how many visits began today. `archive` tells whether there may be older
        visits to ask for.
        """
        today = self._today.read().most_common()
        with self._lock:
            first = after if run == self._run else 0
            state = {
                "schema": SCHEMA,
                "run": self._run,
                "number": self._number,
                "archive": self._archive is not None,
                "today": [[*key, count] for key, count in today],
                "visits": [v.record for v in self._visits.values() if v.number > first],
            }
        return json.dumps(state).encode()

    def older(self, *, before: float, camera: int | None, label: str | None) -> bytes:
        """Return the visits of the store that began before a time, the newest first."""
        found = self._archive and self._archive.visits(before=before, camera=camera, label=label)
        return json.dumps({"schema": SCHEMA, "visits": found or []}).encode()

    def crop(self, id: str) -> bytes | None:
        """Return the best crop of a visit as a JPEG, or None where the visit is not kept."""
        with self._lock:
            visit = self._visits.get(id)
        if visit is not None and visit.crop is not None:
            return visit.crop
        return None if self._archive is None else self._archive.crop(id)

    def _keep(self, record: dict[str, Any], *, crop: bytes | None) -> None:
        self._number += 1
        visit = Visit(self._number, record | {"number": self._number}, crop)
        self._visits[record["id"]] = visit
