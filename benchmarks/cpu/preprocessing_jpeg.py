"""Whether a JPEG may be decoded at a reduced scale: how far the crop then is from the usual one.

    python benchmarks/cpu/preprocessing_jpeg.py PHOTOS [--count 20]

Photos are enlarged (Lanczos, then noise of 2 grey levels, as a sensor has), and saved in quality 92
with colour at half and at full resolution. Each is decoded whole, and by libjpeg at 1/2, 1/4 and
1/8 (cv2.IMREAD_REDUCED_COLOR), where at least 256 pixels remain of its short side. Both go through
`preprocess`. Rows are in benchmarks/results/preprocessing/jpeg.jsonl, the table on stdout.
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
    rows = [row for path in files[:: max(1, len(files) // count)][:count] for row in _rows(path)]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = defaultdict[tuple[Any, ...], list[dict[str, Any]]](list)
    for row in rows:
        groups[row["method"], row["side"], row["scale"], row["sampling"]].append(row)
    print(
        "| method | short side | scale | colour | largest | mean | decode CPU ms, whole / reduced |"
    )
    print("|" + "---|" * 7)
    for key, group in sorted(groups.items()):
        largest = max(row["largest"] for row in group)
        mean = np.mean([row["mean"] for row in group])
        whole, reduced = (np.median([row[k] for row in group]) for k in ("whole_ms", "reduced_ms"))
        method, side, scale, sampling = key
        cells = f"{method} | {side} | 1/{scale} | {sampling} | {largest} | {mean:.2f}"
        print(f"| {cells} | {whole:.1f} / {reduced:.1f} |")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    for side in SIDES:
        picture = _enlarged(np.asarray(photo, np.uint8), side)
        for sampling, flag in SAMPLING.items():
            options = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, flag]
            data = np.asarray(cv2.imencode(".jpg", picture, options)[1], np.uint8)
            whole, whole_ms = _decoded(data, cv2.IMREAD_COLOR)
            for scale, reduced_flag in SCALES.items():
                if side // scale < RESIZE:
                    continue
                reduced, reduced_ms = _decoded(data, reduced_flag)
                for method in METHODS:
                    how = Preprocess(RESIZE, CROP, method)
                    crops = (preprocess(image, how).astype(int) for image in (whole, reduced))
                    difference = np.abs(next(crops) - next(crops))
                    yield {
                        "photo": path.name,
                        "side": side,
                        "sampling": sampling,
                        "scale": scale,
                        "method": method,
                        "largest": int(difference.max()),
                        "mean": float(difference.mean()),
                        "whole_ms": whole_ms,
                        "reduced_ms": reduced_ms,
                    }


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
