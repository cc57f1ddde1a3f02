"""What a store holds: events that match, counts a day, and their crops."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.errors import DataError, UsageError
from finedge.files import write_bytes, write_text
from finedge.runtime.events.store import check_kind
from finedge.runtime.events.stored import read_record
from finedge.sanitize import clean, file_name
from finedge.wall_time import parse_time

COLUMNS = (
    "id",
    "state",
    "source",
    "track",
    "started_at",
    "ended_at",
    "seconds",
    "frames",
    "status",
    "label",
    "p",
    "kind",
    "zone",
    "clip",
)
MOST = 10**9
# A spreadsheet would compute a text that begins so; some read the wide forms too.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class Filter:
    """Which events: all conditions hold.

    Attributes:
        label: of the event, as it was read at the end of the visit.
        source: the name of the source, or a part of it.
        since: visits that started at this time or later, e.g. 2026-11-28 or 2026-11-28T06:00.
            Times are local, or have a zone at their end (Z, +01:00).
        until: visits that started before this time.
        limit: how many, the newest first.
    """

    label: str | None = None
    source: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST:
            raise UsageError(f"--limit {self.limit}", expected=f"1 to {MOST}")
        self.where()

    def where(self) -> tuple[str, tuple[object, ...]]:
        """Return the condition in SQL and its values.

        Raises:
            UsageError: a time that is none.
        """
        conditions: list[tuple[str, object]] = []
        if self.label is not None:
            conditions.append(("label = ?", self.label))
        if self.source is not None:
            conditions.append(("instr(source, ?)", self.source))
        if self.since is not None:
            conditions.append(("started_at >= ?", _seconds(self.since, option="--since")))
        if self.until is not None:
            conditions.append(("started_at < ?", _seconds(self.until, option="--until")))
        text = " AND ".join(condition for condition, _ in conditions) or "1"
        return text, tuple(value for _, value in conditions)


class Listing:
    """A store that is read. A run may write it meanwhile."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Listing]:
        """Open a store.

        Raises:
            DataError: there is no such file, it is no store, or it is damaged.
        """
        if not path.is_file():
            raise DataError(f"{path} is no file", expected="a file of finedge classify --store")
        try:
            with closing(sqlite3.connect(_read_only(path), uri=True)) as file:
                check_kind(file, path)
                yield cls(file, path)
        except (sqlite3.Error, UnicodeError) as error:
            raise DataError(
                f"{path} cannot be read: {error}", expected="a whole store in a folder like before"
            ) from error

    def events(self, choice: Filter) -> list[dict[str, Any]]:
        """Return the records of events, the newest first, each with its `state`."""
        where, values = choice.where()
        rows = self._connection.execute(
            f"SELECT state, record FROM events WHERE {where} ORDER BY started_at DESC LIMIT ?",
            (*values, choice.limit),
        )
        return [
            {**read_record(record, path=self.path), "state": str(state)} for state, record in rows
        ]

    def matched(self, choice: Filter) -> int:
        """Return how many events match, without the limit."""
        where, values = choice.where()
        query = f"SELECT count(*) FROM events WHERE {where}"
        return int(self._connection.execute(query, values).fetchone()[0])

    def counts(self, choice: Filter) -> list[dict[str, Any]]:
        """Return the visits of each label a day of local time, the newest day first."""
        where, values = choice.where()
        rows = self._connection.execute(
            "SELECT date(started_at, 'unixepoch', 'localtime') AS day, CAST(label AS TEXT) AS name,"
            f" count(*) AS visits, max(p) FROM events WHERE {where} GROUP BY day, name"
            " ORDER BY day DESC, visits DESC, name LIMIT ?",
            (*values, choice.limit),
        )
        names = ("day", "label", "visits", "best_p")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def before(
        self, seconds: float | None, *, source: str | None, label: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Return the records of visits that began before a time, the newest first.

        None stands for any time, any source, any label. `source` is the whole name.
        """
        wanted = {"started_at < ?": seconds, "source = ?": source, "label = ?": label}
        asked = {text: value for text, value in wanted.items() if value is not None}
        rows = self._connection.execute(
            f"SELECT record FROM events WHERE {' AND '.join(asked) or '1'}"
            " ORDER BY started_at DESC LIMIT ?",
            (*asked.values(), limit),
        )
        return [read_record(record, path=self.path) for (record,) in rows]

    def began(self, first: float, last: float) -> list[tuple[str, str, str]]:
        """Return id, source and label of the visits that began in [first, last), s since 1970."""
        return self._connection.execute(
            "SELECT CAST(id AS TEXT), CAST(source AS TEXT), CAST(label AS TEXT) FROM events"
            " WHERE started_at >= ? AND started_at < ?",
            (first, last),
        ).fetchall()

    def crop(self, event_id: str) -> bytes | None:
        """Return the best crop of a visit, a JPEG."""
        query = "SELECT jpeg FROM crops WHERE id = ?"
        row = self._connection.execute(query, (event_id,)).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise DataError(f"{self.path} is damaged: a crop is no picture", expected="a JPEG")
        return None if row is None else row[0]


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write events as a CSV file with a line of column names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(record, column) for column in COLUMNS] for record in records)
    write_text(path, text.getvalue())


def write_crops(folder: Path, listing: Listing, records: Sequence[Mapping[str, Any]]) -> int:
    """Write the crop of each event as DIR/LABEL/TIME-ID.jpg; return how many were written.

    The folder is a data set as training reads it: sort the crops, then train again.
    """
    written = 0
    for record in records:
        jpeg = listing.crop(record["id"])
        if jpeg is None:
            continue
        time = record["started_at"].replace(":", "").replace("-", "")
        name = file_name(f"{time}-{record['id']}")
        write_bytes(folder / file_name(record["label"]) / f"{name}.jpg", jpeg)
        written += 1
    return written


def _read_only(path: Path) -> str:
    """Return the address that opens a file for reading.

    SQLite makes two files beside a store to read it. Where a folder cannot be written, and no run
    has made them, nobody writes the store.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    is_kept = not log.exists() and not os.access(path.parent, os.W_OK)
    return f"{address}&immutable=1" if is_kept else address


def _cell(record: Mapping[str, Any], column: str) -> object:
    if column == "p":
        name = record["answer"] or record["coarser"]
        return None if name is None else name["p"]
    value = record[column]
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _seconds(text: str, *, option: str) -> float:
    try:
        return parse_time(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{option} {text}", expected="a day or a time: 2026-11-28 or 2026-11-28T06:00"
        ) from None
