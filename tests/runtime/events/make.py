"""Events and contexts as a run makes them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from finedge.runtime.events.event import Event, Kind, Name
from finedge.runtime.events.notice import Notice
from finedge.runtime.find.box import Box
from finedge.runtime.sinks import Context

CONTEXT = Context("birds", names=("cam0", "cam1"), fps=(25.0,) * 2, live=True, stop=lambda: None)
RED = Name("red", 0.9, 0)
NOON = 1_780_000_000.0  # a day in 2026
SOON_S = 20.0


def make_event(number: int = 0, kind: Kind = "started", **changes: object) -> Event:
    """Make the start or the end of visit `number`; it has a crop of its own."""
    crop = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    values: dict[str, object] = {
        "id": f"visit-{number}",
        "kind": kind,
        "source": "cam0",
        "stream": 0,
        "track": number,
        "started_at": NOON + number,
        "ended_at": NOON + number + (2.0 if kind == "ended" else 0.5),
        "seconds": 2.0 if kind == "ended" else 0.5,
        "frames": 30 if kind == "ended" else 7,
        "answer": RED,
        "coarser": None,
        "top": (RED, Name("blue", 0.1, 1)),
        "box": Box(1, 2, 32, 32),
        "crop": crop,
    }
    return Event(**(values | changes))  # type: ignore[arg-type]


def make_notice(number: int = 0, kind: Kind = "started", **changes: object) -> Notice:
    return Notice.of(make_event(number, kind, **changes))


def wait_until(is_true: Callable[[], object], *, seconds: float = SOON_S) -> None:
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
