"""What preprocessing costs and lets through: each resize method, at four frame sizes.

    python benchmarks/cpu/preprocessing.py times --bundle INT8_224 [--rounds 15]
    python benchmarks/cpu/preprocessing.py aliasing
    python benchmarks/cpu/preprocessing.py table

`times` makes a crop of 224 of 256 pixels on one thread. Methods, sizes and the inference of the
bundle take turns in an order that is shuffled for each round, so that a busy machine slows all
alike. Each round is a row of benchmarks/results/preprocessing/times.jsonl; a second call adds what
is missing. `aliasing` sends gratings through the methods (aliasing.jsonl). `table` prints both as
Markdown, and the accuracy after training with a method, from the rows of
benchmarks/int8_accuracy.py. kornia-rs takes part where it is installed.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from finedge.preprocess import preprocess
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.machine.packages import is_installed, load_package, package_version
from finedge.spec import Method, Preprocess

RESULTS = Path(__file__).resolve().parents[1] / "results/preprocessing"
ACCURACY = RESULTS.parent / "int8_accuracy"  # the rows of benchmarks/int8_accuracy.py
TIMES, ALIASING = RESULTS / "times.jsonl", RESULTS / "aliasing.jsonl"
HOW = Preprocess(256, 224, "cv2-antialias")
SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920))
SCALES = (1.34, 1.875, 2.8125, 4.21875)  # frame pixels a crop pixel; the last two: 720p and 1080p
INFERENCE, KORNIA = "int8 inference", "kornia-rs"
BLOCK_S = 0.03  # CPU time of a block of calls
Frame = NDArray[np.uint8]
Resize = Callable[[Frame, Preprocess], object]


def times(*, bundle: Path, rounds: int = 15) -> None:
    """Measure rounds, each of all methods and sizes.

    Args:
        bundle: its INT8 inference is timed beside the methods; of 224 pixels.
        rounds: rounds in the file at the end.
    """
    cv2.setNumThreads(1)
    finished = max((row["round"] for row in _rows(TIMES)), default=-1) + 1
    with Classifier.open(bundle, variant="int8", threads=1) as classifier:
        calls = dict(_calls(classifier))
        for number in range(finished, rounds):
            order = random.sample(list(calls), len(calls))
            measured = {name: _block(calls[name]) for name in order}
            row = {"round": number, **_machine(), "ms": measured}
            _append(TIMES, row)


def aliasing() -> None:
    """Measure the energy that remains of gratings, as a share of what the frame had.

    Gratings of 0.55 to `scale` / 2 cycles a crop pixel cannot be shown (0.5 is the limit), so what
    remains of them is aliasing. The gain is the amplitude that remains of a grating of 0.25 cycles.
    """
    ALIASING.unlink(missing_ok=True)
    for scale in SCALES:
        side = 8 * round(224 * scale / 8)
        for name, resize in _methods().items():
            how = replace(HOW, resize=224)
            limit = side / 224 / 2
            shares = [_share(resize, how, side, f) for f in np.linspace(0.55, limit, 12)]
            gain = _share(resize, how, side, 0.25) ** 0.5
            row = {"method": name, "scale": side / 224, "alias_mean": float(np.mean(shares))}
            _append(ALIASING, {**row, "alias_max": max(shares), "gain": gain, **_machine()})


def table() -> None:
    """Print the medians and the accuracies as Markdown tables."""
    rows = _rows(TIMES)
    print(f"{len(rows)} rounds, {rows[-1]['cpu']}\n")
    sizes = [f"{width} x {height}" for height, width in SIZES]
    print(f"| CPU ms | {' | '.join(sizes)} | share of {INFERENCE} at 720p |\n|" + "---|" * 6)
    inference = _median(rows, INFERENCE, "cpu")
    for name in _methods():
        values = [_median(rows, _name(name, size), "cpu") for size in SIZES]
        cells = " | ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {cells} | {values[2] / inference:.0%} |")
    wall = _median(rows, INFERENCE, "wall")
    print(f"| {INFERENCE} | | | {inference:.2f} (wall {wall:.2f}) | | |\n")
    print("| alias energy (gain at 0.25 cycles) | " + " | ".join(f"{s:.2f}" for s in SCALES) + " |")
    print("|" + "---|" * (1 + len(SCALES)))
    lines: dict[str, list[str]] = {}
    for row in _rows(ALIASING):
        cell = f"{row['alias_mean']:.3f} ({row['gain']:.2f})"
        lines.setdefault(row["method"], []).append(cell)
    for name, cells_of_scales in lines.items():
        print(f"| {name} | {' | '.join(cells_of_scales)} |")
    print("\n| trained with | model | FP32 top-1 (95 %) | images |\n" + "|---" * 4 + "|")
    for row in map(json.loads, (path.read_text() for path in sorted(ACCURACY.rglob("*.json")))):
        low, high = (f"{100 * bound:.1f}" for bound in row["fp32"]["wilson95"])
        top1, n = f"{100 * row['fp32']['top1']:.1f} ({low}..{high})", row["fp32"]["n"]
        method = row["preprocess"].split("(")[1].split(")")[0]
        print(f"| {method} | {row['data'].split('-')[0]} {row['family']} | {top1} | {n} |")


def _methods() -> dict[str, Resize]:
    methods: dict[str, Resize] = {method: _by(method) for method in get_args(Method)}
    if is_installed("kornia_rs"):
        methods[KORNIA] = _kornia
    return methods


def _by(method: Method) -> Resize:
    return lambda frame, how: preprocess(frame, replace(how, method=method))


def _kornia(frame: Frame, how: Preprocess) -> object:
    """Resize the crop's part of the frame by kornia-rs: antialiased bicubic."""
    length = round(min(frame.shape[:2]) * how.crop / how.resize)
    top, left = (frame.shape[0] - length) // 2, (frame.shape[1] - length) // 2
    part = np.ascontiguousarray(frame[top : top + length, left : left + length])
    return load_package("kornia_rs.imgproc").resize(
        part, (how.crop, how.crop), "bicubic", antialias=True
    )


def _calls(classifier: Classifier) -> Iterator[tuple[str, Callable[[], object]]]:
    for height, width in SIZES:
        coarse = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        frame = np.asarray(cv2.GaussianBlur(coarse, (0, 0), 1.5), np.uint8)
        for name, resize in _methods().items():
            yield _name(name, (height, width)), partial(resize, frame, HOW)
    batch = classifier.prepare([frame])
    yield INFERENCE, lambda: classifier.scores(batch)


def _name(method: str, size: tuple[int, int]) -> str:
    return f"{method} {size[1]}x{size[0]}"


def _block(call: Callable[[], object]) -> dict[str, float]:
    """Return CPU and wall milliseconds of a call, the mean of a block after one call."""
    call()
    count, cpu, wall = 0, time.process_time(), time.perf_counter()
    while time.process_time() - cpu < BLOCK_S or count < 3:
        call()
        count += 1
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": 1e3 * cpu_s / count, "wall": 1e3 * wall_s / count}


def _share(resize: Resize, how: Preprocess, side: int, cycles: float) -> float:
    """Return the energy that remains of a grating, averaged over four phases."""
    shares = []
    for phase in np.arange(4) * np.pi / 4 + 0.1:
        wave = np.sin(2 * np.pi * cycles * 224 / side * np.arange(side) + phase)
        line = np.rint(127.5 + 100 * wave).astype(np.uint8)
        frame = np.repeat(np.tile(line, (side, 1))[..., None], 3, axis=2)
        crop = np.asarray(resize(frame, how)).astype(float)
        shares.append(crop[:, 8:-8].var() / frame.var())
    return float(np.mean(shares))


def _machine() -> dict[str, Any]:
    versions = {name: package_version(name) for name in ("onnxruntime", "PIL", "numpy")}
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    versions["opencv"] = cv2.__version__
    return {"cpu": cpu_name(), "versions": versions, "commit": commit}


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _median(rows: list[dict[str, Any]], name: str, kind: str) -> float:
    values = [row["ms"][name][kind] for row in rows if name in row["ms"]]
    return median(values) if values else float("nan")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"times": times, "aliasing": aliasing, "table": table})
