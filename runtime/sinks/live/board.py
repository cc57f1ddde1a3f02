"""All that the page shows: the cameras, and the machine they run on."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.camera import Camera
from finedge.runtime.sinks.live.histogram import axis
from finedge.runtime.telemetry import Reader

log = logging.getLogger(__name__)

SCHEMA = 1
ROOT = Path("/")
MOST_CAMERAS = 16
TELEMETRY_S = 2.0  # how often the sensors are read, whoever asks


class Board:
    """Sorts results by camera: `Result.stream` says which. `cameras` are what the tiles are called; without it, the newest line's "source"."""

    def __init__(self, title: str, *, cameras: Sequence[str] = (), quiet_s: float = 0.0) -> None:
        self.title, self.quiet_s = title, quiet_s
        self.cameras = [Camera(name, quiet_s=quiet_s) for name in cameras[:MOST_CAMERAS] or [""]]
        if len(cameras) > MOST_CAMERAS:
            log.warning("live page: shows the first %d of %d cameras", MOST_CAMERAS, len(cameras))
        self._started = time.monotonic()
        self._machine = Machine()

    def write(self, result: Result) -> None:
        """Take a result; never waits for a browser. Streams past `MOST_CAMERAS` are not shown."""
        if result.stream >= MOST_CAMERAS:
            return
        while result.stream >= len(self.cameras):
            self.cameras.append(Camera("", quiet_s=self.quiet_s))
        self.cameras[result.stream].write(result)

    def state(self) -> bytes:
        """Return everything but the pictures as JSON."""
        state = {
            "schema": SCHEMA,
            "title": self.title,
            "uptime_s": round(time.monotonic() - self._started),
            "cameras": [camera.state() for camera in tuple(self.cameras)],
            "axis": axis(),
            "machine": self._machine.read(),
        }
        return json.dumps(state).encode()

    def silent_s(self) -> float | None:
        """Return the seconds since the last line of any camera, or None before the first."""
        return min(
            (s for s in (camera.silent_s() for camera in tuple(self.cameras)) if s is not None),
            default=None,
        )


class Machine:
    """The board's sensors: found when first asked for, read at most every `TELEMETRY_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._read_at = float("-inf")
        self._last: dict[str, Any] = {}
        self._works = True

    def read(self) -> dict[str, Any]:
        """Return the fields of `Telemetry` as plain data; empty where the sensors make trouble."""
        with self._lock:
            if self._works and time.monotonic() - self._read_at >= TELEMETRY_S:
                self._last, self._read_at = self._sample(), time.monotonic()
            return self._last

    def _sample(self) -> dict[str, Any]:
        try:
            self._reader = self._reader or Reader(ROOT)
            return self._reader.read().to_json()
        except Exception as error:  # a page without a thermometer is better than none
            self._works = False
            log.warning("live page: no telemetry: %r", error)
            return {}
