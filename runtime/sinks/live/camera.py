"""What the page shows of one camera: its newest answer, its newest picture, rates and latencies."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.measure import MIN_QUERIES, percentile, supported
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.jpeg import to_jpeg

# A line that is overdue by this means that the pipeline itself hangs.
STALLED_S = 5.0
RATE_S = 5.0  # frames a second are counted over this time
STATISTICS_S = 1.0  # the histograms are made at most this often, however many browsers ask
PICTURES_PER_S = 8.0  # JPEGs are made at most this often
MAX_LABELS, MAX_LABEL = 5, 200  # of the answer that goes with a picture
MAX_THINGS, MAX_BOX_LABEL = 16, 60  # boxes of a picture; the answer is a header of some kB

WINDOW = 1024  # frames; enough for a p99 at 99 % confidence
STAGES = ("age", "decode", "find", "preprocess", "infer", "post")
LOWEST_MS, DECADES, BINS_PER_DECADE = 0.1, 5, 8
PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class LivePicture:
    """A picture with the answer that belongs to it.

    `number` counts pictures from 1, `answer` is ASCII JSON, `taken_at` is in monotonic seconds.
    """

    number: int
    answer: str
    jpeg: bytes
    taken_at: float


@dataclass
class CameraCounts:
    """Counts frames by their index in the source.

    A gap is what was dropped. An index that goes back is a source that was opened again.
    `silences` counts how often the frames ceased, however many lines reported it.
    """

    classified: int = 0
    dropped: int = 0
    silences: int = 0
    _last: int = -1
    _silent: bool = False

    def add(self, index: int | None) -> None:
        """Count a frame, or a silence where `index` is None."""
        if index is None:
            self.silences += not self._silent
            self._silent = True
            return
        self._silent = False
        self.classified += 1
        self.dropped += index - self._last - 1 if index > self._last else index
        self._last = index


class LatencyWindow:
    """The newest `WINDOW` durations of each stage, in ms; `age` is from capture to answer.

    It has no lock: its owner has one. `finedge.runtime.stream.percentiles` instead
    counts all frames of a run, in bins.
    """

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW) for stage in STAGES}

    def add(self, record: dict[str, Any]) -> None:
        """Take the durations of one classify line; null values are left out."""
        for stage, samples in self._samples.items():
            ms = record.get("age_ms") if stage == "age" else record.get("ms", {}).get(stage)
            if ms is not None:
                samples.append(float(ms))

    def copy(self) -> dict[str, list[float]]:
        """Return the samples of each stage."""
        return {stage: list(samples) for stage, samples in self._samples.items()}


class CameraState:
    """The newest result of one camera.

    `write` keeps a reference and returns. The costly part happens when a browser asks.
    """

    def __init__(self, name: str, *, quiet_s: float = 0.0) -> None:
        self.name, self._quiet_s = name, quiet_s
        self._lock = threading.Lock()  # for all but the picture and the statistics
        self._encoding, self._summing = threading.Lock(), threading.Lock()
        self._started = time.monotonic()
        self._record: dict[str, Any] | None = None
        self._written_at = self._started
        # Its number, the result, its pixels, and when it was captured.
        self._newest: tuple[int, Result, NDArray[np.uint8], float] | None = None
        self._times: deque[float] = deque()
        self._latencies, self._counts = LatencyWindow(), CameraCounts()
        self._picture: LivePicture | None = None
        self._encoded_at = self._summed_at = float("-inf")
        self._statistics: dict[str, Any] = {}

    def write(self, result: Result) -> None:
        """Take a result; it never waits for a browser."""
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
            self._newest = (self._counts.classified, result, result.image, captured_at)

    def state(self) -> dict[str, Any]:
        """Return status, rates and latencies as plain data.

        `status` is that of the newest line, or "starting" before the first, or "stalled" when the
        next is `STALLED_S` overdue. `picture_age_ms` is the time since the newest frame was
        captured, `silent_ms` the time since the newest line.
        """
        now = time.monotonic()
        with self._lock:
            record, counts, newest = self._record or {}, self._counts, self._newest
            silent_s = now - self._written_at
            self._forget(now)
            fps = len(self._times) / min(RATE_S, max(now - self._started, 1.0))
            numbers = {
                "captured": counts.classified + counts.dropped,
                "classified": counts.classified,
                "dropped": counts.dropped,
                "silences": counts.silences,
            }
        return {
            "name": self.name or record.get("source") or "",
            "status": _status(record, overdue_s=silent_s - self._quiet_s),
            "picture_age_ms": None if newest is None else round(1e3 * (now - newest[3])),
            "silent_ms": round(1e3 * silent_s),
            "fps": round(fps, 2),
            **numbers,
            "variant": record.get("variant"),
            "backend": record.get("backend"),
            "file": record.get("file"),
            "latency": self._latency(now),
        }

    def silent_s(self) -> float | None:
        """Return the seconds since the newest line, or None before the first."""
        with self._lock:
            return None if self._record is None else time.monotonic() - self._written_at

    def picture(self, *, after: int = 0) -> LivePicture | None:
        """Return the newest picture, or None if its number is `after`.

        It is encoded once for all who ask, and at most `PICTURES_PER_S` times a second.
        """
        with self._encoding:
            self._encode()
            picture = self._picture
        return picture if picture is not None and picture.number != after else None

    def _encode(self) -> None:
        with self._lock:
            newest = self._newest
        now = time.monotonic()
        if newest is None or now - self._encoded_at < 1 / PICTURES_PER_S:
            return
        number, result, image, captured_at = newest
        if self._picture is not None and self._picture.number == number:
            return
        self._encoded_at = now
        self._picture = LivePicture(number, _answer(result, image), to_jpeg(image), captured_at)

    def _latency(self, now: float) -> dict[str, Any]:
        with self._summing:
            if now - self._summed_at >= STATISTICS_S:
                with self._lock:
                    samples = self._latencies.copy()
                self._statistics = {stage: histogram(ms) for stage, ms in samples.items()}
                self._summed_at = now
            return self._statistics

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - RATE_S:
            self._times.popleft()


def histogram(samples: Sequence[float]) -> dict[str, Any]:
    """Return `n`, the `counts` of each bin, and the percentiles of durations, all in ms.

    Bin i holds [0.1 * 10^(i/8), 0.1 * 10^((i+1)/8)) ms; the first and the last also hold what lies
    beyond. A percentile is null where the samples are too few for it (see `finedge.measure`).
    """
    bins = DECADES * BINS_PER_DECADE
    places = np.floor(np.log10(np.maximum(samples, 1e-9) / LOWEST_MS) * BINS_PER_DECADE)
    counts = np.bincount(np.clip(places, 0, bins - 1).astype(int), minlength=bins)
    percentiles = {
        f"p{p}": round(percentile(samples, p), 3) if supported(p, len(samples)) else None
        for p in PERCENTS
    }
    return {"n": len(samples), "counts": counts.tolist(), **percentiles}


def histogram_axis() -> dict[str, Any]:
    """Return what the page needs to draw `counts`, and how many samples each percentile needs."""
    return {
        "lowest_ms": LOWEST_MS,
        "decades": DECADES,
        "bins_per_decade": BINS_PER_DECADE,
        "needs": {f"p{p}": MIN_QUERIES[p] for p in PERCENTS},
    }


def _status(record: dict[str, Any], *, overdue_s: float) -> str:
    if not record:
        return "starting"
    return "stalled" if overdue_s > STALLED_S else str(record["status"])


def _answer(result: Result, image: NDArray[np.uint8]) -> str:
    record = result.record
    top = [{"label": str(t["label"])[:MAX_LABEL], "p": t["p"]} for t in record["top"][:MAX_LABELS]]
    answer = {
        "frame": record["frame"],
        "status": record["status"],
        "top": top,
        "size": [image.shape[1], image.shape[0]],
        "roi": record.get("roi"),
        "things": None
        if result.things is None
        else [_thing(t) for t in result.things[:MAX_THINGS]],
    }
    return json.dumps(answer)


def _thing(line: dict[str, Any]) -> dict[str, Any]:
    """Return the box of a thing, [x, y, w, h] in pixels of the frame, and its answer."""
    best = line["top"][0]
    label = str(best["label"])[:MAX_BOX_LABEL]
    return {"box": line["box"], "status": line["status"], "label": label, "p": best["p"]}
