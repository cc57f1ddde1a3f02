"""What the page knows of one camera: its newest answer, its newest picture, its rates."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.histogram import Latencies, histogram

STALLED_S = 5.0  # neither an answer nor a silence is reported so long after it was due: the pipeline itself hangs
RATE_S = 5.0  # frames a second are counted over this time
STATISTICS_S = 1.0  # how often the histograms are made anew, whoever asks
PICTURES_PER_S = 8.0  # JPEGs made a second, whoever asks
LONGEST_SIDE, QUALITY = 960, 80
SHOWN, LABEL_LENGTH = 5, 200  # what of an answer goes beside its picture


@dataclass(frozen=True)
class Shot:
    """A picture with the answer that belongs to it: `number` counts pictures from 1, `answer` is ASCII JSON, `taken_at` monotonic seconds."""

    number: int
    answer: str
    jpeg: bytes
    taken_at: float


@dataclass
class Counts:
    """Frames by their index in the source: a gap is what was dropped; an index that goes back is a source that was opened anew.

    `silences` counts how often the frames ceased, however many lines told so.
    """

    classified: int = 0
    dropped: int = 0
    silences: int = 0
    _last: int = -1
    _silent: bool = False

    def add(self, index: int | None) -> None:
        """Count a frame, or a silence where `index` is None."""
        self.silences += index is None and not self._silent
        self._silent = index is None
        if index is None:
            return
        self.classified += 1
        self.dropped += index - self._last - 1 if index > self._last else index
        self._last = index


class Camera:
    """The newest result of one camera; `write` keeps a reference and returns, the costly part happens when a browser asks."""

    def __init__(self, name: str, *, quiet_s: float = 0.0) -> None:
        self.name, self._quiet_s = name, quiet_s
        self._lock, self._encoding, self._summing = (
            threading.Lock(),
            threading.Lock(),
            threading.Lock(),
        )
        self._started = time.monotonic()
        self._record: dict[str, Any] | None = None
        self._written_at = self._started
        self._picture: tuple[int, dict[str, Any], NDArray[np.uint8], float] | None = None
        self._times: deque[float] = deque()
        self._latencies, self._counts = Latencies(), Counts()
        self._shot: Shot | None = None
        self._encoded_at = self._summed_at = float("-inf")
        self._statistics: dict[str, Any] = {}

    def write(self, result: Result) -> None:
        """Take a result; never waits for a browser."""
        now = time.monotonic()
        with self._lock:
            self._record, self._written_at = result.record, now
            self._counts.add(result.record["frame"])
            self._latencies.add(result.record)
            if result.image is None:
                return
            self._times.append(now)
            self._forget(now)
            captured_at = now - (result.record["age_ms"] or 0.0) / 1e3
            self._picture = (self._counts.classified, result.record, result.image, captured_at)

    def state(self) -> dict[str, Any]:
        """Return status, rates and latencies as plain data.

        `status` is that of the newest line, or "starting" before the first, or "stalled" when the next is `STALLED_S` overdue. `picture_age_ms` is
        the time since the newest frame was captured, `silent_ms` since the last line.
        """
        now = time.monotonic()
        with self._lock:
            record, counts, picture, silent = (
                self._record,
                self._counts,
                self._picture,
                now - self._written_at,
            )
            self._forget(now)
            rate = len(self._times) / min(RATE_S, max(now - self._started, 1.0))
            numbers = {
                "captured": counts.classified + counts.dropped,
                "classified": counts.classified,
                "dropped": counts.dropped,
                "silences": counts.silences,
            }
        shown = record or {}
        return {
            "name": self.name or shown.get("source") or "",
            "status": _status(shown, overdue_s=silent - self._quiet_s),
            "picture_age_ms": None if picture is None else round(1e3 * (now - picture[3])),
            "silent_ms": round(1e3 * silent),
            "fps": round(rate, 2),
            **numbers,
            "variant": shown.get("variant"),
            "backend": shown.get("backend"),
            "file": shown.get("file"),
            "latency": self._latency(now),
        }

    def silent_s(self) -> float | None:
        """Return the seconds since the last line, or None before the first."""
        with self._lock:
            return None if self._record is None else time.monotonic() - self._written_at

    def shot(self, *, after: int = 0) -> Shot | None:
        """Return the newest picture, encoded once for all who ask and at most `PICTURES_PER_S` times a second; None if it is not newer than `after`."""
        with self._encoding:
            self._encode()
            return self._shot if self._shot is not None and self._shot.number != after else None

    def _encode(self) -> None:
        with self._lock:
            picture = self._picture
        now = time.monotonic()
        if (
            picture is None
            or now - self._encoded_at < 1 / PICTURES_PER_S
            or (self._shot is not None and self._shot.number == picture[0])
        ):
            return
        number, record, image, captured_at = picture
        self._encoded_at = now
        self._shot = Shot(number, _answer(record, image), to_jpeg(image), captured_at)

    def _latency(self, now: float) -> dict[str, Any]:
        with self._summing:
            if now - self._summed_at >= STATISTICS_S:
                with self._lock:
                    samples = self._latencies.copy()
                self._statistics, self._summed_at = (
                    {stage: histogram(values) for stage, values in samples.items()},
                    now,
                )
            return self._statistics

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - RATE_S:
            self._times.popleft()


def to_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W, 3] RGB as a JPEG of at most `LONGEST_SIDE` pixels a side."""
    import cv2

    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return encoded.tobytes()


def _status(record: dict[str, Any], *, overdue_s: float) -> str:
    if not record:
        return "starting"
    return "stalled" if overdue_s > STALLED_S else str(record["status"])


def _answer(record: dict[str, Any], image: NDArray[np.uint8]) -> str:
    top = [{"label": str(t["label"])[:LABEL_LENGTH], "p": t["p"]} for t in record["top"][:SHOWN]]
    told = {
        "frame": record["frame"],
        "status": record["status"],
        "top": top,
        "size": [image.shape[1], image.shape[0]],
        "roi": record.get("roi"),
    }
    return json.dumps(told)
