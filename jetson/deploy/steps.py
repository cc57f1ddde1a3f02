"""What a deploy did: every step is a line in the log and an object in the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from finedge.errors import FinedgeError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step: wall time in seconds, and one line about what was done or went wrong."""

    name: str
    ok: bool
    seconds: float
    detail: str


@dataclass
class Note:
    """Where a step in progress leaves its detail."""

    detail: str = ""


@dataclass
class Journal:
    """The steps of one deploy; `rolled_back` says that the new version was taken away again and the board is as it was before."""

    host: str
    version: str
    steps: list[Step] = field(default_factory=list)
    rolled_back: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        """Time a step; what it raises is recorded and passes on."""
        start, note = time.monotonic(), Note()
        try:
            yield note
        except BaseException as error:
            what = error.what if isinstance(error, FinedgeError) else type(error).__name__
            self.add(Step(name, False, time.monotonic() - start, what))
            raise
        self.add(Step(name, True, time.monotonic() - start, note.detail))

    def add(self, step: Step) -> None:
        """Record a step and log it."""
        self.steps.append(step)
        log.log(
            logging.INFO if step.ok else logging.ERROR,
            "%-8s %s in %.1f s: %s",
            step.name,
            "ok" if step.ok else "failed",
            step.seconds,
            step.detail,
        )

    def result(self) -> dict[str, Any]:
        """Return what `finedge deploy` prints."""
        steps = [{**asdict(s), "seconds": round(s.seconds, 3)} for s in self.steps]
        return {
            "host": self.host,
            "version": self.version,
            "steps": steps,
            "rolled_back": self.rolled_back,
        }
