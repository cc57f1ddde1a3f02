"""`finedge classify` on RTSP cameras as a process of its own, and what it says of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.soak.receivers import Key
from benchmarks.soak.watched import Sample, sample
from tests.runtime.events.broker import free_port

SERVER = "benchmarks.soak.clip_server"
ROOT = Path(__file__).parents[2]
END_S = 30.0
COUNTS = ("captured", "answered", "idle", "dropped", "no_signal")


class Cameras:
    """An RTSP server that plays clips as so many cameras."""

    def __init__(self, clips: tuple[Path, ...], cameras: int, *, fps: int) -> None:
        words = ["/usr/bin/python3", "-m", SERVER, *(str(clip.absolute()) for clip in clips)]
        self._process = subprocess.Popen(
            [*words, "--cameras", str(cameras), "--fps", str(fps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("the RTSP server did not start; see tests/apt.txt")
        self.addresses = [f"rtsp://127.0.0.1:{int(line)}/cam{n}" for n in range(cameras)]

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Numbers:
    """What a run counted until a moment.

    Attributes:
        cameras: for each camera its `COUNTS`.
        ages: how many answers were at most so many ms old, by the upper edge, all cameras.
        queues: delivered, lost and waiting events, by sink.
    """

    cameras: list[dict[str, int]]
    ages: dict[float, int]
    queues: dict[str, dict[str, int]]


@dataclass
class Run:
    """The process. Its events are the lines of its stdout; its log goes to a file."""

    words: list[str]
    log: Path
    cameras: int
    made: Counter[Key] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._metrics = f"127.0.0.1:{free_port()}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finedge", *self.words, "--metrics", self._metrics],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def sample(self) -> Sample:
        """Look at the process."""
        return sample(self.process.pid)

    def numbers(self) -> Numbers:
        """Read its counts.

        Raises:
            OSError: it does not answer, or not yet.
        """
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as answer:
            return _numbers(answer.read().decode(), self.cameras)

    def end(self) -> int:
        """Ask it to end as Ctrl-C does, and return the exit code."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(5.0)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            record = json.loads(line)
            self.made[record["id"], record["event"]] += 1


def _numbers(text: str, cameras: int) -> Numbers:
    counts = [dict.fromkeys(COUNTS, 0) for _ in range(cameras)]
    ages: Counter[float] = Counter()
    queues: dict[str, dict[str, int]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels, value = one.labels, int(one.value)
            name = one.name.removeprefix("finedge_").removesuffix("_total")
            if "source" in labels and name.startswith(("frames_", "no_signal")):
                camera = counts[int(labels["source"].rpartition("/cam")[2])]
                camera[name.removeprefix("frames_")] += value
                if labels.get("status") == "idle":
                    camera["idle"] += value
            elif name == "frame_age_seconds_bucket":
                ages[1e3 * float(labels["le"])] += value
            elif name.startswith("sink_"):
                queues.setdefault(labels["sink"], {})[name.removeprefix("sink_")] = value
    return Numbers(counts, dict(ages), queues)


def changes(before: Numbers, after: Numbers) -> dict[str, Any]:
    """Return what was counted in between, as plain data.

    An age is the upper edge of its bucket: the percentile is at most that. None: above 5 s.
    """
    cameras = [
        {name: now[name] - then[name] for name in COUNTS}
        for then, now in zip(before.cameras, after.cameras, strict=True)
    ]
    return {"cameras": cameras, "age_ms_at_most": age_percentiles(before.ages, after.ages)}


def age_percentiles(before: dict[float, int], after: dict[float, int]) -> dict[str, float | None]:
    """Return the edges below which 50, 95 and 99 % of the answers in between are."""
    counts = sorted((edge, count - before.get(edge, 0)) for edge, count in after.items())
    total = counts[-1][1] if counts else 0
    edges = {}
    for percent in (50, 95, 99):
        edge = next((edge for edge, count in counts if count >= total * percent / 100), None)
        edges[f"p{percent}"] = None if edge is None or edge == float("inf") else round(edge, 3)
    return edges
