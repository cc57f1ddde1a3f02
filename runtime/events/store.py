"""Events and their best crops in an SQLite file, safe under kill -9.

A visit is one row: its start inserts it, its end replaces it. SQLite runs with a write-ahead log
and `synchronous = NORMAL`: a killed process loses nothing that was written, and a power cut loses
at most the last commits, never the file.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import DataError, FinedgeError, SystemProblem
from finedge.files import writable_folder
from finedge.locks import lock
from finedge.runtime.events.event import Event
from finedge.runtime.events.notice import Notice, NoticeSink
from finedge.runtime.events.outbox import Outbox, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.sinks import Context

log = logging.getLogger(__name__)

APPLICATION = 0x66696E65  # "fine", in SQLite's header: this file is a store
VERSION = 1
MIB = 2**20
DAY_S = 86400.0
EVERY = 200  # inserts between two looks at age and size
AT_ONCE = 20  # rows that are removed in one transaction
OPEN, ENDED, INTERRUPTED = "open", "ended", "interrupted"
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE events (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, source TEXT NOT NULL, track INTEGER NOT NULL,
    started_at REAL NOT NULL, ended_at REAL NOT NULL, label TEXT NOT NULL, p REAL,
    record TEXT NOT NULL
);
CREATE TABLE crops (
    id TEXT PRIMARY KEY REFERENCES events (id) ON DELETE CASCADE, jpeg BLOB NOT NULL
);
CREATE INDEX events_by_time ON events (started_at);
"""
PUT_EVENT = """
INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, ended_at = excluded.ended_at, label = excluded.label, p = excluded.p,
    record = excluded.record
"""
PUT_CROP = """
INSERT INTO crops VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET jpeg = excluded.jpeg
"""


@dataclass(frozen=True)
class Retention:
    """What a store keeps: at most `days` (0 is for ever) and `mib`."""

    days: float = 0.0
    mib: float = 1024.0


class Store:
    """The file, for one writer. `put` may raise `Undelivered`.

    Visits that a killed run left open are closed at the last time that is known of them: their
    state is `interrupted`.

    Args:
        path: of the file; it is made where it is missing.
        retention: what it keeps.

    Raises:
        DataError: the file is no store, or one of a newer version.
        SystemProblem: it cannot be opened, or another run writes it.
    """

    def __init__(self, path: Path, retention: Retention = Retention()) -> None:
        self.path, self.retention = path, retention
        self.interrupted = self._puts = 0
        self._lock: int | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the open one
        writable_folder(path.parent, option="--store")
        self._started = time.time(), time.monotonic()
        try:
            self._connection = self._opened()
        except sqlite3.Error as error:
            raise SystemProblem(
                f"--store {path}: {error}",
                expected="a store of this version that can be written, and that nobody locks",
            ) from error

    def put(self, notice: Notice) -> None:
        """Write a notice as one transaction.

        Raises:
            Undelivered: a full disk, a card that became read-only, a file that was removed.
        """
        try:
            if self._file is None or self._file != _identity(self.path):
                self._reopen()  # SQLite would write on into a file without a name
            with self._connection as transaction:
                transaction.execute(PUT_EVENT, _row(notice.event))
                transaction.execute(PUT_CROP, (notice.event.id, notice.jpeg))
            self._puts += 1
            if self._puts % EVERY == 0:
                self.remove_old()
        except FinedgeError as error:  # somebody put another file there
            raise Undelivered(
                error.what, expected=error.expected, fix="remove it; the events wait"
            ) from error
        except (sqlite3.Error, OSError) as error:
            is_locked = "locked" in str(error)
            raise Undelivered(
                f"{self.path}: {error}",
                expected="no other program that holds it"
                if is_locked
                else "a disk that can be written, with space left",
                fix=f"{'end it' if is_locked else 'free some space'}; what waits is written then",
                # Any other error would come again, and hold up the events after this one.
                again=isinstance(error, sqlite3.OperationalError | OSError),
            ) from error

    def remove_old(self) -> int:
        """Remove what is older or larger than the retention allows; return how many events."""
        removed = 0
        if self.retention.days:
            removed += self._remove(
                "SELECT id FROM events WHERE state != 'open' AND ended_at < ? LIMIT ?",
                self._now() - self.retention.days * DAY_S,
            )
        while self.bytes > self.retention.mib * MIB:
            oldest = "SELECT id FROM events WHERE ? ORDER BY rowid LIMIT ?"
            step = self._remove(oldest, True, once=True)
            removed += step
            if not step:
                break
        if removed:
            self._connection.executescript("PRAGMA incremental_vacuum")
            log.debug("%s: %d old events were removed", self.path, removed)
        return removed

    @property
    def bytes(self) -> int:
        """The size of what is stored, without free pages."""
        used, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((used - free) * size)

    def close(self) -> None:
        """Close the file: its write-ahead log is merged into it."""
        self._connection.close()
        self._unlock()

    def _now(self) -> float:
        """Return the wall time, without jumps of more than a day since the run began.

        A board without a battery starts in 1970, and a wrong time server may say 2099. Neither
        must remove events as too old.
        """
        wall, monotonic = self._started
        return min(time.time(), wall + time.monotonic() - monotonic + DAY_S)

    def _opened(self) -> sqlite3.Connection:
        # The outbox's thread uses the connection, one call at a time.
        connection = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False)
        try:
            check_kind(connection, self.path, may_be_empty=True)
            connection.executescript(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
                "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"
            )
            self._lock, self._file = self._locked(), _identity(self.path)
            if connection.execute("PRAGMA application_id").fetchone()[0] == 0:
                with connection:
                    connection.executescript(f"BEGIN; {SCHEMA}")
                # A file that is moved away from its log is a store all the same.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute(f"EXPLAIN {PUT_EVENT}", (None,) * 9)  # are the columns ours?
            connection.execute(f"EXPLAIN {PUT_CROP}", (None,) * 2)
            with connection:
                closed = connection.execute(
                    "UPDATE events SET state = ? WHERE state = ?", (INTERRUPTED, OPEN)
                )
            self.interrupted = closed.rowcount
        except BaseException:
            connection.close()
            self._unlock()
            raise
        if self.interrupted:
            log.info("%s: %d visits of a run that was killed", self.path, self.interrupted)
        return connection

    def _reopen(self) -> None:
        self.close()
        self._connection = self._opened()

    def _unlock(self) -> None:
        # After SQLite has closed the file: POSIX drops a process's locks with any handle of it.
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._file = None

    def _locked(self) -> int | None:
        try:
            return lock(self.path)
        except BlockingIOError:
            raise SystemProblem(
                f"--store {self.path}: another run writes it",
                expected="a file of its own for each run",
            ) from None

    def _remove(self, query: str, value: object, *, once: bool = False) -> int:
        removed = 0
        while True:
            with self._connection as transaction:
                rows = transaction.execute(query, (value, AT_ONCE)).fetchall()
                transaction.executemany("DELETE FROM events WHERE id = ?", rows)
            removed += len(rows)
            if once or len(rows) < AT_ONCE:
                return removed


def check_kind(connection: sqlite3.Connection, path: Path, *, may_be_empty: bool = False) -> None:
    """Check that a file is a store of a version that is known here.

    Raises:
        DataError: it is not.
    """
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path}: {error}", expected="a file of finedge classify --store"
        ) from error
    if may_be_empty and application == 0 and tables == 0:
        return
    if application != APPLICATION:
        raise DataError(f"{path} is no store of events", expected="a file of --store")
    if not 1 <= version <= VERSION:
        raise DataError(
            f"{path} has version {version}", expected=f"1 to {VERSION}", fix="update finedge"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _row(event: Event) -> tuple[object, ...]:
    name = event.answer or event.coarser
    return (
        event.id,
        OPEN if event.kind == "started" else ENDED,
        event.source,
        event.track,
        event.started_at,
        event.ended_at,
        event.label,
        None if name is None else name.p,
        json.dumps(event.record()),
    )


def open_store(
    outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
) -> NoticeSink | None:
    """Return the sink of --store."""
    if outputs.store is None:
        return None
    store = Store(outputs.store, Retention(outputs.store_days, outputs.store_max_mib))
    store.remove_old()
    return Outbox("store", store.put, release=store.close)
