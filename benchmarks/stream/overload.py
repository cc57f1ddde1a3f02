"""What the pipeline promises at any overload: the age of answered frames, and their rate.

    python benchmarks/stream/overload.py [--bundle examples/birds.finedge] [--seconds 20]

It prints JSON (kept in benchmarks/results/stream/overload.json). First the stages are timed one
after the other: the slower one is the capacity. Then frames come at 0.5, 1, 2 and 5 times that
rate. The checks are:

- at each rate, age p95 <= one period of the source + preprocess + 2 x inference, both at their p95
  in that run;
- from twice the capacity on, answers a second >= 0.95 of the capacity for stages that sleep. For
  real stages on one inference thread it is >= 0.9.

Exit code 1 when a check fails. An age includes the post-processing, which the bound leaves out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from finedge.measure import percentile, supported
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.replay import Replay
from finedge.runtime.benchmark.watch import AnsweredFrame, ranking, watch
from finedge.runtime.classifier import Classifier
from finedge.runtime.stream.pipeline import BatchModel
from finedge.runtime.telemetry.environment import environment

RATES = (0.5, 1.0, 2.0, 5.0)
Rank = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True)
class Sleeper:
    """Stages that take their time and compute nothing."""

    prepare_s: float
    infer_s: float

    def prepare(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Sleep; return a batch of nothing."""
        time.sleep(self.prepare_s)
        return np.zeros((len(frames), 1), np.uint8)

    def scores(
        self, batch: NDArray[np.uint8], *, frames: Sequence[NDArray[np.uint8]] = ()
    ) -> NDArray[np.float32]:
        """Sleep; return scores of two classes."""
        time.sleep(self.infer_s)
        return np.zeros((len(batch), 2), np.float32)


@dataclass(frozen=True)
class Subject:
    """What is measured, and the share of its capacity that it must reach."""

    name: str
    stages: BatchModel
    rank: Rank
    share: float


def main(
    *,
    bundle: Path = Path("examples/birds.finedge"),
    variant: str = "int8",
    seconds: float = 20.0,
    images: int = 32,
) -> None:
    """Measure every subject at every rate."""
    frames = rendered_frames(images).frames
    with Classifier.open(bundle, variant=variant, threads=1) as classifier:
        subjects = (
            Subject("sleeping, inference slower", Sleeper(0.008, 0.020), len, 0.95),
            Subject("sleeping, preprocessing slower", Sleeper(0.020, 0.008), len, 0.95),
            Subject(
                f"{classifier.bundle.name} {variant} on {classifier.session.info.backend}",
                classifier,
                lambda scores: classifier.rank(classifier.probabilities(scores)),
                0.9,
            ),
        )
        machine = environment()  # before our own load
        rows = [row for subject in subjects for row in measure(subject, frames, seconds=seconds)]
    print(json.dumps({"environment": machine, "seconds": seconds, "rows": rows}, indent=1))
    sys.exit(not all(check for row in rows for check in row["pass"].values()))


def measure(
    subject: Subject, frames: Sequence[NDArray[np.uint8]], *, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each rate."""
    alone = stage_times(subject.stages, frames, seconds=seconds / 4)
    capacity = 1e3 / max(alone.values())
    rows = []
    for rate in RATES:
        source = Replay(frames, capacity * rate)
        answered = watch(source, subject.stages, finish=ranking(subject.rank), seconds=seconds)
        row = {
            "subject": subject.name,
            "rate": rate,
            "alone_p50_ms": alone,
            "capacity_fps": round(capacity, 3),
            **numbers(answered, fps=source.fps),
        }
        rows.append({**row, "missed": source.missed, "pass": checks(row, subject)})
        passed = json.dumps(rows[-1]["pass"])
        print(f"{subject.name} at {rate:g} x {capacity:.1f} frames/s: {passed}", file=sys.stderr)
    return rows


def stage_times(
    stages: BatchModel, frames: Sequence[NDArray[np.uint8]], *, seconds: float
) -> dict[str, float]:
    """Return the median wall time in ms of each stage while nothing else runs."""
    times: dict[str, list[float]] = {"preprocess": [], "infer": []}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        batch = stages.prepare([frames[len(times["infer"]) % len(frames)]])
        prepared = time.perf_counter()
        stages.scores(batch)
        times["preprocess"].append(1e3 * (prepared - start))
        times["infer"].append(1e3 * (time.perf_counter() - prepared))
    return {stage: round(percentile(samples, 50), 4) for stage, samples in times.items()}


def numbers(answered: Sequence[AnsweredFrame], *, fps: float) -> dict[str, Any]:
    """Return ages, stages and rates; a percentile that too few frames support is None."""
    columns = {
        "age": [frame.age_ms for frame in answered],
        "preprocess": [frame.preprocess for frame in answered],
        "infer": [frame.infer for frame in answered],
        "post": [frame.post for frame in answered],
    }
    percentiles = {
        f"{name}_p{p}_ms": round(percentile(c, p), 4) if supported(p, len(c)) else None
        for name, c in columns.items()
        for p in (50, 95, 99)
    }
    first, last, n = answered[0], answered[-1], len(answered)
    span_s = (last.answered_ns - first.answered_ns) / 1e9
    return {
        "period_ms": round(1e3 / fps, 4),
        "n": n,
        "dropped": last.index - first.index + 1 - n,
        "fps_answered": round((n - 1) / span_s, 3),
        **percentiles,
        "age_max_ms": round(max(columns["age"]), 4),
    }


def checks(row: dict[str, Any], subject: Subject) -> dict[str, bool]:
    """Return which promises hold; with too few frames for a p95 the age does not."""
    age = False
    if row["age_p95_ms"] is not None:
        bound = row["period_ms"] + row["preprocess_p95_ms"] + 2 * row["infer_p95_ms"]
        age = row["age_p95_ms"] <= bound
    if row["rate"] < 2:
        return {"age": age}
    return {"age": age, "throughput": row["fps_answered"] >= subject.share * row["capacity_fps"]}


if __name__ == "__main__":
    tyro.cli(main)
