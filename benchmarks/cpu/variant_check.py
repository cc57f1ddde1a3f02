"""How long the check of `auto` takes, what it finds, and how often it claims what is not there.

    python benchmarks/cpu/variant_check.py OUT.jsonl BUNDLE ...

For each bundle it compares fp32 with int8, for both kinds of INT8 products, and then fp32 with
itself: there each "faster" is wrong. One thread. Rows are appended as they are measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.ort.int8_products import OVERRIDE
from finedge.runtime.telemetry.environment import commit, load_average, version
from finedge.runtime.variant.timing import Interleaved, Timing, camera_frame

TRIALS = 5
SAME_TRIALS = 20  # of fp32 against itself


def timed(bundle: Bundle, variants: dict[str, str]) -> tuple[Timing, float]:
    """Time variants by name, as `auto` does; return the times, and the seconds of the check."""
    frames = [camera_frame()]
    with ExitStack() as exits:
        opened = {
            name: exits.enter_context(Classifier.open(bundle, variant=variant, threads=1))
            for name, variant in variants.items()
        }
        queries = {name: (lambda c=c: c(frames)) for name, c in opened.items()}
        start = time.perf_counter()
        timing = Interleaved(queries, cpu_clock=time.process_time)()
        return timing, time.perf_counter() - start


def row(bundle: Bundle, kind: str, variants: dict[str, str]) -> dict[str, Any]:
    """Return one measurement as plain data."""
    timing, seconds = timed(bundle, variants)
    first, second = variants
    speed = timing.speed(second, of=first)
    assert speed is not None
    return {
        "bundle": bundle.name,
        "kind": kind,
        "seconds": round(seconds, 3),
        **vars(speed),
        "is_faster": speed.is_faster,
        "is_settled": speed.is_settled,
        "load": load_average(),
        "cpu": cpu_name(),
        "onnxruntime": version("onnxruntime"),
        "commit": commit(),
    }


def main(out: Path, paths: list[str]) -> None:
    """Measure each bundle; a row is written as soon as it is measured."""
    for path in paths:
        bundle = Bundle.load(path)
        for kind in ("exact", "saturating"):
            os.environ[OVERRIDE] = kind
            append(out, bundle, kind, variants={"fp32": "fp32", "int8": "int8"}, trials=TRIALS)
        same = {"first": "fp32", "second": "fp32"}
        append(out, bundle, "same", variants=same, trials=SAME_TRIALS)


def append(out: Path, bundle: Bundle, kind: str, *, variants: dict[str, str], trials: int) -> None:
    """Append a row for each trial."""
    for _ in range(trials):
        record = json.dumps(row(bundle, kind, variants))
        with out.open("a") as file:
            print(record, file=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
