"""The results file of a run: one JSON object a line, written as soon as it is known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

Row = Mapping[str, Any]  # plain data


@dataclass(frozen=True)
class Results:
    """The results file; `add` may be called from several threads."""

    file: TextIO
    start: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, part: str, row: Row) -> None:
        """Write one row at once."""
        at = round(time.monotonic() - self.start, 1)
        line = json.dumps({"part": part, "at_s": at, **row})
        with self.lock:
            self.file.write(line + "\n")
            self.file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def parsed(line: str) -> dict[str, Any] | None:
    """Return a row, or None for a line that some library printed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
