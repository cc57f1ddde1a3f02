"""A 1280 x 720 frame in memory to top-5, on one thread: preprocess, infer, post and total.

    python -m benchmarks.cpu.frame_to_top5 run NAME BUNDLE [--rounds 20] [--realtime]
    python -m benchmarks.cpu.frame_to_top5 table

`run` opens the FP32 and the INT8 file with each method of preprocessing. All take turns in shuffled
rounds, and each round is a row of benchmarks/results/frame_to_top5/NAME.jsonl with the medians of
some frames. A second call adds the rounds that are missing. A method is data of the bundle: here
the spec of an open bundle is changed, so only times are right, not the answers of the other method.

A CPU without VNNI cannot be timed by this script on one that has it.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from benchmarks.realtime import realtime as priority
from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.telemetry.environment import commit, version
from finedge.runtime.variant.timing import camera_frame
from finedge.spec import Method

RESULTS = Path(__file__).resolve().parents[1] / "results/frame_to_top5"
METHODS: tuple[Method, ...] = ("pillow-bicubic", "cv2-antialias")
VARIANTS = ("fp32", "int8")
FRAMES = 3  # in a burst, after one that brings the weights into the caches
STEPS = ("preprocess", "infer", "post", "total")


def run(
    name: Positional[str],
    bundle: Positional[Path],
    *,
    rounds: int = 20,
    realtime: bool = False,
) -> None:
    """Measure the rounds that are missing.

    Args:
        name: of the rows.
        bundle: with FP32 and INT8 files.
        rounds: rounds in the file at the end.
        realtime: as root, make other programs wait.
    """
    cv2.setNumThreads(1)
    path = RESULTS / f"{name}.jsonl"
    first = len(rows(path))
    if first >= rounds:
        return
    frame, classifiers = camera_frame(), dict(opened(Bundle.load(bundle)))
    for number in range(first, rounds):
        times = {}
        with priority(realtime):
            for lane in random.Random(number).sample(list(classifiers), len(classifiers)):
                times[lane] = burst(classifiers[lane], frame)
        append(path, {"round": number, **about(classifiers), "cpu_ms": times})


def opened(bundle: Bundle) -> Iterator[tuple[str, Classifier]]:
    """Open every variant; yield it with each method."""
    for variant in VARIANTS:
        classifier = Classifier.open(bundle, variant=variant, backend="onnxruntime", threads=1)
        for method in METHODS:
            steps = replace(bundle.spec.preprocess, method=method)
            changed = replace(bundle, spec=replace(bundle.spec, preprocess=steps))
            yield f"{variant} {method}", replace(classifier, bundle=changed)


def burst(classifier: Classifier, frame: NDArray[np.uint8]) -> dict[str, float]:
    """Return the medians of the CPU milliseconds of each step, over some frames."""
    answer(classifier, frame)
    times = [answer(classifier, frame) for _ in range(FRAMES)]
    return {step: round(median(t[step] for t in times), 4) for step in STEPS}


def answer(classifier: Classifier, frame: NDArray[np.uint8]) -> dict[str, float]:
    """Do what `Classifier.__call__` does; return the CPU milliseconds of each step."""
    marks = [time.process_time()]
    batch = classifier.prepare([frame])
    marks.append(time.process_time())
    scores = classifier.scores(batch)
    marks.append(time.process_time())
    classifier.rank(classifier.probabilities(scores))
    marks.append(time.process_time())
    steps = [1e3 * (b - a) for a, b in itertools.pairwise(marks)]
    return dict(zip(STEPS, [*steps, sum(steps)], strict=True))


def table() -> None:
    """Print the medians over the rounds, and INT8 over FP32, as Markdown."""
    print("| model | method | variant | " + " | ".join(STEPS) + " | FP32 / INT8 |\n|" + "---|" * 8)
    for path in sorted(RESULTS.glob("*.jsonl")):
        measured = rows(path)
        about_rows = f"{path.stem} ({len(measured)} rounds, {measured[0]['cpu']})"
        for method in METHODS:
            for variant in VARIANTS:
                lane = f"{variant} {method}"
                cells = [
                    f"{median(row['cpu_ms'][lane][step] for row in measured):.2f}" for step in STEPS
                ]
                last = f"{ratio(measured, method):.2f}" if variant == "int8" else ""
                print(f"| {about_rows} | {method} | {variant} | {' | '.join(cells)} | {last} |")


def ratio(measured: Sequence[Mapping[str, Any]], method: str) -> float:
    """Return the median over the rounds of FP32's total over INT8's."""
    totals = [
        [row["cpu_ms"][f"{variant} {method}"]["total"] for variant in VARIANTS] for row in measured
    ]
    ratios: list[float] = [fp32 / int8 for fp32, int8 in totals]
    return median(ratios)


def about(classifiers: Mapping[str, Classifier]) -> dict[str, Any]:
    """Return the model, the machine and the versions."""
    spec = next(iter(classifiers.values())).bundle.spec
    precision = classifiers[f"int8 {METHODS[0]}"].session.info.precision
    versions = {name: version(name) for name in ("onnxruntime", "numpy", "cv2", "PIL")}
    return {
        "model": f"{spec.model} {spec.backbone} {spec.input.width} px, {len(spec.labels)} classes",
        "int8": precision,
        "cpu": cpu_name(),
        "versions": versions,
        "commit": commit(),
    }


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows so far."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
