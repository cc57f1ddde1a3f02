"""The steps of a deployment: each is one line in the log and one object in the result."""

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
class DeployStep:
    """One step of a deployment.

    Attributes:
        name: what was done, e.g. "copy".
        ok: whether it succeeded.
        seconds: its wall time.
        detail: one line about what was done or what went wrong.
    """

    name: str
    ok: bool
    seconds: float
    detail: str


@dataclass
class StepDetail:
    """Where a step in progress leaves its detail."""

    text: str = ""


@dataclass
class Journal:
    """The steps of one deployment.

    `rolled_back` is true after the new version was removed: the board is as it was before.
    """

    host: str
    version: str
    steps: list[DeployStep] = field(default_factory=list)
    rolled_back: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[StepDetail]:
        """Time a step; an error in it is recorded and raised again."""
        start, detail = time.monotonic(), StepDetail()
        try:
            yield detail
        except BaseException as error:
            problem = error.what if isinstance(error, FinedgeError) else type(error).__name__
            self.add(DeployStep(name, False, time.monotonic() - start, problem))
            raise
        self.add(DeployStep(name, True, time.monotonic() - start, detail.text))

    def add(self, step: DeployStep) -> None:
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
        steps = [{**asdict(step), "seconds": round(step.seconds, 3)} for step in self.steps]
        return {
            "host": self.host,
            "version": self.version,
            "steps": steps,
            "rolled_back": self.rolled_back,
        }
