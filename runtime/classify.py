"""`finedge classify`: a bundle watches a source; one JSON line a frame on stdout, a summary in the log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from finedge.errors import UsageError
from finedge.measure import percentile_text
from finedge.runtime.classifier import Classifier, Prediction
from finedge.runtime.sources import Frame, open_source
from finedge.runtime.stream import NO_SIGNAL_MS, Counts, Stream, stop_on_signals

log = logging.getLogger(__name__)

SCHEMA = 1


def classify(
    bundle: Positional[Path],
    source: Positional[str],
    *,
    variant: str = "auto",
    backend: str = "auto",
    topk: int = 5,
    frames: int | None = None,
    stale_ms: float = 1000.0,
    no_signal_ms: float = NO_SIGNAL_MS,
) -> None:
    """Classify images, a video or a camera; prints one JSON line a frame.

    Of a camera or test:// the newest frame is classified and what came too fast is dropped and counted; of files every frame is.

    Args:
        bundle: the bundle to run.
        source: photo.jpg, photos/, 'photos/*.jpg' (in quotes), clip.mp4, /dev/video0 or its number, or test:// (a rendered scene).
        variant: fp32, fp16 or int8; auto is int8 where the bundle holds it, else fp32.
        backend: a backend, or auto for the first that runs here.
        topk: how many labels a line holds.
        frames: stop after so many frames; without it, at the end of the source or at Ctrl-C.
        stale_ms: a live frame whose answer is older than this, in ms, has status "stale".
        no_signal_ms: a live source silent for this long, in ms, gives a line with status "no_signal".
    """
    if frames is not None and frames < 1:
        raise UsageError(f"--frames {frames}", expected="at least 1")
    if min(stale_ms, no_signal_ms) <= 0:
        raise UsageError(f"--stale-ms {stale_ms} --no-signal-ms {no_signal_ms}", expected="positive numbers of milliseconds")
    with open_source(source) as opened, Classifier.open(bundle, variant=variant, backend=backend, topk=topk) as classifier:
        watch = Watch(classifier, source, stale_ms=stale_ms if opened.live else float("inf"))
        stream = Stream(opened, no_signal_ms=no_signal_ms)
        try:
            with stream, stop_on_signals(stream.stop) as interrupted:
                for record in watch.records(stream, limit=frames):
                    # One write a line, so that a signal never leaves half of one behind.
                    print(json.dumps(record) + "\n", end="", flush=True)
        finally:
            log.info(watch.summary(stream.counts))
    if interrupted.is_set():
        raise KeyboardInterrupt


@dataclass
class Watch:
    """Turns the frames of a stream into classify lines, and keeps what the summary needs."""

    classifier: Classifier
    source: str
    stale_ms: float
    ages_ms: list[float] = field(default_factory=list)
    silences: int = 0
    # Wall time = monotonic + this, fixed at the start: a clock that is set meanwhile does not tear the record apart.
    wall_offset_ns: int = field(default_factory=lambda: time.time_ns() - time.monotonic_ns())
    started: float = field(default_factory=time.monotonic)

    def records(self, stream: Iterable[Frame | None], *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield a record for each frame (at most `limit` of them) and for each silence. Only real frames reach the model."""
        for frame in stream:
            if frame is None:
                self.silences += 1
                yield self._record(self.source, None, status="no_signal")
                continue
            (prediction,) = self.classifier([frame.image])
            yield self._answer(frame, prediction)
            if limit is not None and len(self.ages_ms) >= limit:
                return

    def summary(self, counts: Counts) -> str:
        """Return counts, rate and ages in one line."""
        seconds, used = time.monotonic() - self.started, len(self.ages_ms)
        ages = ", ".join(f"p{p:g} {percentile_text(self.ages_ms, p)}" for p in (50, 99))
        silences = f", {self.silences} times no signal" if self.silences else ""
        return (
            f"{self.source}: {counts.captured} frames captured, {used} classified, {counts.dropped} dropped{silences}; "
            f"{used / seconds:.1f} frames/s; age in ms {ages}"
        )

    def _answer(self, frame: Frame, prediction: Prediction) -> dict[str, Any]:
        age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
        self.ages_ms.append(age_ms)
        record = self._record(frame.name, frame.index, status="stale" if age_ms > self.stale_ms else "ok")
        times = {"decode": frame.decode_ms, "preprocess": prediction.ms.preprocess, "infer": prediction.ms.infer, "post": prediction.ms.post}
        return {
            **record,
            "captured_at": self._wall_time(frame.captured_ns),
            "age_ms": round(age_ms, 3),
            "top": [{"index": t.index, "label": t.label, "p": round(t.p, 6)} for t in prediction.top],
            "ms": {stage: round(ms, 3) for stage, ms in times.items()},
        }

    def _record(self, source: str, frame: int | None, *, status: str) -> dict[str, Any]:
        """Return a line without an answer: what is not known is null or empty."""
        session = self.classifier.session.info
        return {
            "schema": SCHEMA,
            "source": source,
            "frame": frame,
            "captured_at": None,
            "age_ms": None,
            "status": status,
            "top": [],
            "ms": {"decode": None, "preprocess": None, "infer": None, "post": None},
            "variant": self.classifier.variant,
            "backend": session.backend,
            "file": session.file,
        }

    def _wall_time(self, captured_ns: int) -> str:
        seconds = (captured_ns + self.wall_offset_ns) / 1e9
        return datetime.fromtimestamp(seconds, tz=timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
