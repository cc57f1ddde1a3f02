"""What the file of --store keeps of visits, read for the page while the run writes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TypeVar

from finedge.errors import DataError
from finedge.runtime.events.listing import Listing
from finedge.runtime.sinks.live.today import Key

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
NO_CAMERA = -1  # of a visit whose source is not in this run
AT_ONCE = 60  # older visits in one answer


class Archive:
    """The visits in a store. Each call opens the file: any thread may call, and it may be replaced.

    A file that cannot be read gives None, which is logged once until it can be read again.

    Args:
        path: the store.
        cameras: the sources of this run, in their order.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        self._path, self._cameras = path, tuple(cameras)
        self._is_broken = False

    def visits(
        self,
        *,
        before: float | None = None,
        camera: int | None = None,
        label: str | None = None,
        limit: int = AT_ONCE,
    ) -> list[dict[str, Any]] | None:
        """Return the newest visits, the newest first, as the page takes them.

        Args:
            before: only those that began earlier, in s since 1970.
            camera: only those of this camera, by its number.
            label: only those with this label.
            limit: how many.
        """
        if camera is not None and not 0 <= camera < len(self._cameras):
            return []
        source = None if camera is None else self._cameras[camera]
        records = self._read(
            lambda listing: listing.before(before, source=source, label=label, limit=limit)
        )
        return None if records is None else [self._shown(record) for record in records]

    def began_on(self, day: date) -> list[tuple[str, Key]] | None:
        """Return id, camera and label of each visit that began on a day of local time."""
        first, last = span_of(day)
        rows = self._read(lambda listing: listing.began(first, last))
        if rows is None:
            return None
        return [(id, (self._camera(source), label)) for id, source, label in rows]

    def crop(self, id: str) -> bytes | None:
        """Return the best crop of a visit, a JPEG."""
        return self._read(lambda listing: listing.crop(id))

    def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        own = {key: value for key, value in record.items() if key != "clip"}
        return own | {"event": "ended", "stream": self._camera(record["source"]), "number": 0}

    def _camera(self, source: str) -> int:
        return self._cameras.index(source) if source in self._cameras else NO_CAMERA

    def _read(self, read: Callable[[Listing], Answer]) -> Answer | None:
        try:
            with Listing.opened(self._path) as listing:
                answer = read(listing)
        except DataError as error:
            if not self._is_broken:
                log.warning("live page: %s", error)
            self._is_broken = True
            return None
        self._is_broken = False
        return answer


def span_of(day: date) -> tuple[float, float]:
    """Return when a day of local time begins and ends, in s since 1970: 23 to 25 hours."""
    begin, end = (datetime.combine(d, time.min) for d in (day, day + timedelta(days=1)))
    return begin.timestamp(), end.timestamp()
