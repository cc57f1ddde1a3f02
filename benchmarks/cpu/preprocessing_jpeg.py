"""Whether a JPEG may be decoded at a reduced scale: how far the crop then is from the usual one.

    python benchmarks/cpu/preprocessing_jpeg.py PHOTOS [--count 20]

Photos are enlarged (Lanczos, then noise of 2 grey levels, as a sensor has), and saved in quality 92
with colour at half and at full resolution. Each is decoded whole, and by libjpeg at 1/2, 1/4 and
1/8 (cv2.IMREAD_REDUCED_COLOR), where at least 256 pixels remain of its short side. Both go through
`preprocess`. A picture of random squares, 4800 pixels high, is the hardest one. Rows are in
benchmarks/results/preprocessing/jpeg.jsonl, the table on stdout.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from finedge.preprocess import preprocess
from finedge.spec import Method, Preprocess

RESULTS = Path(__file__).resolve().parents[1] / "results/preprocessing/jpeg.jsonl"
SIDES = (512, 1200, 2400)  # of the short side, in pixels
SAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
SCALES = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
METHODS: tuple[Method, ...] = ("cv2-antialias", "pillow-bicubic")
RESIZE, CROP = 256, 224


def measure(photos: tyro.conf.Positional[Path], *, count: int = 20) -> None:
    """Write a row for each picture, sampling, scale and method; print the table."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    chosen = files[:: max(1, len(files) // count)][:count]
    rows = [row for picture in _pictures(chosen) for row in _rows(*picture)]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = defaultdict[tuple[Any, ...], list[dict[str, Any]]](list)
    for row in rows:
        groups[row["method"], row["side"], row["scale"], row["sampling"]].append(row)
    print("| method | short side | scale | colour | largest | mean | CPU ms, whole / reduced |")
    print("|" + "---|" * 7)
    for key, group in sorted(groups.items()):
        largest = max(row["largest"] for row in group)
        mean = np.mean([row["mean"] for row in group])
        whole, reduced = (np.median([row[k] for row in group]) for k in ("whole_ms", "reduced_ms"))
        method, side, scale, sampling = key
        cells = f"{method} | {side} | 1/{scale} | {sampling} | {largest} | {mean:.2f}"
        print(f"| {cells} | {whole:.1f} / {reduced:.1f} |")


def _pictures(files: list[Path]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield names and pictures, uint8 [H, W, 3]."""
    for path in files:
        photo = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
        for side in SIDES:
            yield path.name, _enlarged(photo, side)
    squares = np.random.default_rng(0).integers(0, 256, (1200, 1300, 3), np.uint8)
    yield "squares of 4 pixels", np.repeat(np.repeat(squares, 4, axis=0), 4, axis=1)


def _rows(name: str, picture: NDArray[np.uint8]) -> Iterator[dict[str, Any]]:
    side = min(picture.shape[:2])
    for sampling, flag in SAMPLING.items():
        options = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, flag]
        data = np.asarray(cv2.imencode(".jpg", picture, options)[1], np.uint8)
        whole, whole_ms = _decoded(data, cv2.IMREAD_COLOR)
        for scale, reduced_flag in SCALES.items():
            if side // scale < RESIZE:
                continue
            reduced, reduced_ms = _decoded(data, reduced_flag)
            times = {"whole_ms": whole_ms, "reduced_ms": reduced_ms}
            for method in METHODS:
                largest, mean = _difference(whole, reduced, method)
                row = {"picture": name, "side": side, "sampling": sampling, "scale": scale}
                yield {**row, "method": method, "largest": largest, "mean": mean, **times}


def _difference(
    whole: NDArray[np.uint8], reduced: NDArray[np.uint8], method: Method
) -> tuple[int, float]:
    """Return the largest and the mean difference of both crops, in grey levels."""
    how = Preprocess(RESIZE, CROP, method)
    difference = np.abs(preprocess(whole, how).astype(int) - preprocess(reduced, how))
    return int(difference.max()), float(difference.mean())


def _enlarged(photo: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    scale = side / min(photo.shape[:2])
    size = round(photo.shape[1] * scale), round(photo.shape[0] * scale)
    large = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_LANCZOS4), float)
    noise = np.random.default_rng(0).normal(0, 2, large.shape)
    return np.clip(np.rint(large + noise), 0, 255).astype(np.uint8)


def _decoded(data: NDArray[np.uint8], flag: int) -> tuple[NDArray[np.uint8], float]:
    start = time.process_time()
    image = np.asarray(cv2.imdecode(data, flag), np.uint8)
    return image, 1e3 * (time.process_time() - start)


if __name__ == "__main__":
    tyro.cli(measure)
