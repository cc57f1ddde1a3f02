"""The results file of a run: one JSON object a line, written as soon as it is known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]  # plain data


class Results:
    """The results file; `add` may be called from several threads.

    A row that does not fit on the disk is taken back and kept: it is written before the next row,
    and `close` prints what the disk never took. So each line of the file is whole.

    Args:
        path: the file; rows are appended.

    Attributes:
        start: when the run started, by `time.monotonic`.
        statuses: the rows that have a status, in order.
    """

    def __init__(self, path: Path) -> None:
        self.start = time.monotonic()
        self.statuses: list[Row] = []
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._path = path

    def add(self, part: str, row: Row) -> None:
        """Write one row at once."""
        at = round(time.monotonic() - self.start, 1)
        row = {"part": part, "at_s": at, **row}
        with self._lock:
            self._waiting.append(json.dumps(row).encode() + b"\n")
            self._write()
            if "status" in row:
                self.statuses.append(row)

    def close(self) -> None:
        """Write what could not be written before; print it where that fails again."""
        with self._lock:
            self._write()
            for line in self._waiting:
                print(line.decode(), end="", flush=True)

    def _write(self) -> None:
        try:
            with self._path.open("ab", buffering=0) as file:
                while self._waiting:
                    end = file.tell()
                    if not _whole(file, self._waiting[0]):
                        file.truncate(end)
                        return
                    del self._waiting[0]
        except OSError:  # the disk is full, or the folder is gone: the rows wait
            return


def _whole(file: Any, line: bytes) -> bool:
    """Write a line without a buffer; tell whether all of it fitted."""
    try:
        return bool(file.write(line) == len(line))
    except OSError:
        return False


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file; a line that a killed machine cut off is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [row for row in map(parsed, lines) if row is not None]


def parsed(line: str) -> dict[str, Any] | None:
    """Return a row, or None for a line that some library printed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
