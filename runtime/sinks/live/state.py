"""All that the page shows: the cameras, and the machine they run on."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finedge import __version__
from finedge.runtime.events.notice import Counts
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.attention import CropAttention
from finedge.runtime.sinks.live.camera import CameraState, histogram_axis
from finedge.runtime.telemetry import Reader

log = logging.getLogger(__name__)

SCHEMA = 1
ROOT = Path("/")
MAX_CAMERAS = 16
METRICS = "metrics"
Reports = Callable[[], Mapping[str, Counts]]

TELEMETRY_S = 2.0  # the sensors are read at most this often, however many browsers ask


class LiveState:
    """Sorts results by camera: `Result.stream` is the camera's number.

    `cameras` are the names of the tiles. Without them a tile has the "source" of its newest line.
    """

    def __init__(
        self,
        title: str,
        *,
        cameras: Sequence[str] = (),
        quiet_s: float = 0.0,
        attention: CropAttention | None = None,
        reports: Reports = dict,
    ) -> None:
        self.title, self.quiet_s = title, quiet_s
        self._attention, self._reports = attention, reports
        names = cameras[:MAX_CAMERAS] or [""]
        self.cameras = [CameraState(name, quiet_s=quiet_s) for name in names]
        if len(cameras) > MAX_CAMERAS:
            log.warning("live page: shows the first %d of %d cameras", MAX_CAMERAS, len(cameras))
        self._started = time.monotonic()
        self._machine = MachineState()

    def write(self, result: Result) -> None:
        """Take a result; it never waits for a browser.

        Streams from number `MAX_CAMERAS` on are not shown.
        """
        if result.stream >= MAX_CAMERAS:
            return
        while result.stream >= len(self.cameras):
            self.cameras.append(CameraState("", quiet_s=self.quiet_s))
        self.cameras[result.stream].write(result)

    def to_json(self) -> bytes:
        """Return everything but the pictures as JSON."""
        state = {
            "schema": SCHEMA,
            "title": self.title,
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._started),
            "cameras": [camera.state() for camera in tuple(self.cameras)],
            "axis": histogram_axis(),
            "machine": self._machine.read(),
            "attention": self._map(),
            "outputs": [
                {"name": name, **vars(counts)} | {"problem_s": round(counts.problem_s)}
                for name, counts in self._reports().items()
                if name != METRICS  # nothing is sent there
            ],
        }
        return json.dumps(state).encode()

    def _map(self) -> dict[str, str] | None:
        """Return which map is drawn over crops."""
        drawn = self._attention
        return None if drawn is None else {"title": drawn.view.label, "variant": drawn.variant}

    def silent_s(self) -> float | None:
        """Return the seconds since the newest line of any camera, or None before the first."""
        silences = (camera.silent_s() for camera in tuple(self.cameras))
        return min((s for s in silences if s is not None), default=None)


class MachineState:
    """The board's sensors: opened at the first request, read at most every `TELEMETRY_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._read_at = float("-inf")
        self._last: dict[str, Any] = {}
        self._works = True

    def read(self) -> dict[str, Any]:
        """Return the fields of `Telemetry` as plain data; empty where the sensors fail."""
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
