"""CPU time and memory of decoding a video: finedge, and OpenCV's FFmpeg for comparison.

usage: python benchmarks/decode.py CLIP...

One line of JSON for each clip and reader, each in a process of its own. The pictures end as RGB in
both. CPU time is of all threads.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.sources import open_source

READERS = ("finedge", "opencv")


def by_finedge(path: str) -> Iterator[object]:
    with open_source(path) as source:
        yield from source


def by_opencv(path: str) -> Iterator[object]:
    reader = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    while (pair := reader.read())[0]:
        yield cv2.cvtColor(pair[1], cv2.COLOR_BGR2RGB)


def measure(path: str, reader: str) -> dict[str, object]:
    pictures = by_finedge(path) if reader == "finedge" else by_opencv(path)
    next(pictures)  # opening is not counted
    start = time.process_time()
    count = sum(1 for _ in pictures)
    cpu_s = time.process_time() - start
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "clip": Path(path).name,
        "reader": reader,
        "frames": count,
        "cpu_ms": round(1e3 * cpu_s / count, 2),
        "peak_mib": round(peak_mib),
        "cpu": cpu_name(),
    }


def main() -> None:
    if sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[3], sys.argv[2])))
        return
    for path in sys.argv[1:]:
        for reader in READERS:
            subprocess.run([sys.executable, __file__, "--one", reader, path], check=True)


if __name__ == "__main__":
    main()
