"""What finding by motion costs: CPU ms a frame, and the share of a core of a camera that is idle.

    python benchmarks/stream/finding.py [--seconds 20] [--keep]

Frames of 1280 x 720 are rendered before, and come at 15 a second through the pipeline that
`finedge classify --find motion` runs, with one thread each for OpenCV and ONNX Runtime. Two scenes:
a still one, whose frames differ by the sensor's noise alone, and one with three birds. CPU time is
that of the whole process (`time.process_time`), so it does not count what other programs use. A row
for each scene and number of cameras goes to benchmarks/results/finding/rows.jsonl.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import finedge
from finedge.runtime.benchmark.replay import Replay
from finedge.runtime.classifier import Classifier
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.stream.objects import ObjectResults
from finedge.runtime.stream.pipeline import Detections, Pipeline, Silence
from finedge.runtime.stream.results import Results
from finedge.synthetic.flock import Flock

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks/results/finding/rows.jsonl"
FPS = 15.0
SETTLE_S = 2.0


def frames_of(scene: str) -> list[NDArray[np.uint8]]:
    """Return a second of the still scene, or eight of the busy one."""
    flock = Flock(0 if scene == "still" else 3, seed=1, fps=FPS)
    first, count = (0, 15) if scene == "still" else (90, 120)
    return [flock.frame(index) for index in range(first, first + count)]


def measure(scene: str, cameras: int, *, seconds: float) -> dict[str, Any]:
    """Return the row of a scene."""
    sources = [Replay(frames_of(scene), FPS) for _ in range(cameras)]
    finders = [CameraFinder(MotionFinder()) for _ in sources]
    find_ms: list[float] = []
    with Classifier.open(
        ROOT / "examples/birds.finedge", variant="int8", backend="onnxruntime", threads=1
    ) as classifier:
        results = Results(classifier, sources)
        objects = ObjectResults(results, finders)
        with Pipeline(sources, classifier, finders=finders) as pipeline:
            start, begin = time.monotonic(), (0.0, 0.0)
            for output in pipeline:
                assert isinstance(output, Detections | Silence)
                objects(output)
                now = time.monotonic()
                if now < start + SETTLE_S:
                    continue
                if begin == (0.0, 0.0):
                    begin = (now, time.process_time())
                if isinstance(output, Detections):
                    find_ms.append(output.find_ms)
                if now > start + SETTLE_S + seconds:
                    break
            wall, cpu = time.monotonic() - begin[0], time.process_time() - begin[1]
    states = results.states
    return {
        "scene": scene,
        "cameras": cameras,
        "fps": FPS,
        "cpu_share_per_camera": round(cpu / wall / cameras, 4),
        "answered_per_second": round(len(find_ms) / wall, 1),
        "idle_share": round(sum(s.idle for s in states) / sum(s.answered for s in states), 3),
        "find_wall_ms_median": round(float(np.median(find_ms)), 3),
    }


def finder_cpu(scene: str) -> dict[str, float]:
    """Return the CPU time of the finder alone, in ms a frame of 1280 x 720 on one thread."""
    frames, finder, times = frames_of(scene), MotionFinder(), []
    for index in range(300):
        start = time.thread_time()
        finder(frames[index % len(frames)], seconds=index / FPS)
        times.append(1e3 * (time.thread_time() - start))
    times = times[30:]
    return {
        "find_cpu_ms_mean": round(float(np.mean(times)), 3),
        "find_cpu_ms_median": round(float(np.median(times)), 3),
        "find_cpu_ms_p95": round(float(np.percentile(times, 95)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--keep", action="store_true", help="write the rows to benchmarks/results")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    facts = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "finedge": finedge.__version__,
        "opencv": cv2.__version__,
        "commit": subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(),
    }
    for scene, cameras in (("still", 1), ("still", 2), ("birds", 1)):
        row = measure(scene, cameras, seconds=options.seconds)
        result = row | finder_cpu(scene) | facts
        print(json.dumps(result), flush=True)
        if options.keep:
            ROWS.parent.mkdir(parents=True, exist_ok=True)
            with ROWS.open("a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
