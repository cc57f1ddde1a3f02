"""Whether the resize methods give the same pixels on every CPU.

    python benchmarks/cpu/preprocessing_pixels.py frames PHOTOS FRAMES.npz
    PYTHON benchmarks/cpu/preprocessing_pixels.py crops FRAMES.npz CROPS.npz
    python benchmarks/cpu/preprocessing_pixels.py compare NAME CROPS.npz OTHER.npz

`frames` takes 30 photos, enlarged to four sizes in turn, and 10 frames of noise and gratings.
`crops` needs only numpy, OpenCV and Pillow, so it runs under qemu-user: with the aarch64 Python of
tests/jetson/aarch64/run.sh, and with `qemu-x86_64 -cpu Haswell` (see `make test-avx2`). `compare`
adds rows to benchmarks/results/preprocessing/pixels.jsonl.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray

from finedge.preprocess import preprocess
from finedge.spec import Method, Preprocess

RESULTS = Path(__file__).resolve().parents[1] / "results/preprocessing/pixels.jsonl"
SIZES = ((0, 0), (480, 640), (720, 1280), (1080, 1920))  # (0, 0) is the photo as it is
PHOTOS, SYNTHETIC = 30, 10


def frames(photos: Path, out: Path) -> None:
    """Store the frames: photos of a folder, and noise and gratings of several sizes."""
    files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    chosen = files[:: max(1, len(files) // PHOTOS)][:PHOTOS]
    stored: dict[str, Any] = {}
    for number, path in enumerate(chosen):
        image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
        height, width = SIZES[number % len(SIZES)]
        if height:
            large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
            image = np.asarray(large, np.uint8)
        stored[f"photo{number}"] = image
    for number in range(SYNTHETIC):
        stored[f"synthetic{number}"] = _synthetic(number)
    np.savez(out, **stored)


def _synthetic(number: int) -> NDArray[np.uint8]:
    height, width = ((240, 320), (401, 600), (480, 640), (720, 1280), (1080, 1920))[number % 5]
    if number < 5:
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3))
        return noise.astype(np.uint8)
    rows, columns = np.mgrid[:height, :width].astype(float)
    radius = (rows - height / 2) ** 2 + (columns - width / 2) ** 2
    plate = 127.5 + 127.5 * np.cos(np.pi * radius / max(height, width))
    return np.repeat(plate.astype(np.uint8)[..., None], 3, axis=2)


def crops(stored: Path, out: Path) -> None:
    """Store the crop of every frame by every method, and print where it was computed."""
    with np.load(stored) as arrays:
        images = {name: arrays[name] for name in arrays.files}
    result: dict[str, Any] = {}
    for method in get_args(Method):
        how = Preprocess(256, 224, method)
        result[method] = np.stack([preprocess(image, how) for image in images.values()])
    versions = f"numpy {np.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
    np.savez(out, machine=f"{platform.machine()}, {versions}", **result)
    print(platform.machine(), versions)


def compare(name: str, own: Path, other: Path) -> None:
    """Add a row for each method: the largest and the mean difference, in grey levels."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with np.load(own) as here, np.load(other) as there, RESULTS.open("a") as file:
        for method in get_args(Method):
            difference = np.abs(here[method].astype(int) - there[method])
            row = {
                "other": name,
                "method": method,
                "frames": len(difference),
                "largest": int(difference.max()),
                "mean": float(difference.mean()),
                "share_of_values": float((difference > 0).mean()),
                "sha256": hashlib.sha256(there[method].tobytes()).hexdigest(),
                "machines": [str(here["machine"]), str(there["machine"])],
            }
            file.write(json.dumps(row) + "\n")
            print(json.dumps(row))


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "compare":
        compare(words[0], Path(words[1]), Path(words[2]))
    else:
        {"frames": frames, "crops": crops}[command](Path(words[0]), Path(words[1]))
