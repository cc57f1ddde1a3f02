"""A million frames through the pipeline: is one lost or doubled, and does the memory grow?

    python -m benchmarks.soak.million [--frames 1000000] [--lines /dev/null]

It prints one JSON object; exit code 1 if one is lost or doubled, or if the memory grows. The source
never sleeps, the backend is the fake one, smoothing and holding are on, every line is written.
There are two runs: as a file (every frame must come through, in order) and live (dropped frames
must be counted). The resident memory after the first tenth is compared with that at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.soak.watched import MAX_GROWTH_MIB, resident_mib
from finedge.bundle import FLOAT_FILE, Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend
from finedge.runtime.sources import Frame, SourceInfo
from finedge.runtime.stream.decide import Holding, Rules, Smoothing
from finedge.runtime.stream.pipeline import Pipeline
from finedge.runtime.stream.results import Results
from finedge.runtime.telemetry.environment import environment
from finedge.spec import Input, Preprocess, Spec

SPEC = Spec(
    "soak", "none", ("a", "b", "c"), Preprocess(resize=8, crop=8, method="cv2-linear"), Input(8, 8)
)


class Flood:
    """`count` frames as fast as they are taken."""

    def __init__(self, count: int, *, live: bool) -> None:
        self.live, self.count = live, count
        self.info = SourceInfo("flood", "flood://", fps=1000.0)

    def __iter__(self) -> Iterator[Frame]:
        images = [np.full((8, 8, 3), grey, np.uint8) for grey in (10, 120, 240)]
        for index in range(self.count):
            yield Frame(index, time.monotonic_ns(), images[index // 100 % 3], "flood://", 0.0)

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def soak(classifier: Classifier, source: Flood, *, lines: Path) -> dict[str, object]:
    """Run a source to its end; return what came through."""
    results = Results(classifier, [source], rules=Rules(Smoothing(0.5), Holding(3)))
    pipeline = Pipeline([source], classifier)
    last, wrong, answered, sizes = -1, 0, 0, [0.0]
    start = time.monotonic()
    with lines.open("w") as out, pipeline:
        for answer in pipeline:
            record = results(answer).record
            out.write(json.dumps(record) + "\n")
            if record["frame"] is None:  # a silence: this machine was busy for seconds
                continue
            wrong += record["frame"] <= last if source.live else record["frame"] != last + 1
            last, answered = record["frame"], answered + 1
            if last * 10 >= source.count and not sizes[0]:
                gc.collect()
                sizes = [resident_mib()]
    gc.collect()
    sizes.append(resident_mib())
    (counts,) = pipeline.counts
    lost = counts.captured - counts.dropped - answered
    right = (
        wrong == 0 and lost == 0 and counts.captured == source.count and last == source.count - 1
    )
    return {
        "live": source.live,
        "frames": source.count,
        "answered": answered,
        "dropped": counts.dropped,
        "lost": lost,
        "out_of_order": wrong,
        "seconds": round(time.monotonic() - start, 1),
        "mib_behind_a_tenth": round(sizes[0], 2),
        "mib_at_the_end": round(sizes[1], 2),
        "pass": right and sizes[1] - sizes[0] < MAX_GROWTH_MIB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--lines", type=Path, default=Path(os.devnull))
    options = parser.parse_args()
    machine = environment()  # before our own load
    with TemporaryDirectory() as folder:
        bundle = Bundle.create(
            Path(folder) / "soak.finedge", SPEC, files={FLOAT_FILE: b"never opened"}, provenance={}
        )
        with Classifier(bundle, FakeBackend().open(bundle, variant="fp32"), "fp32") as classifier:
            runs = [
                soak(classifier, Flood(options.frames, live=live), lines=options.lines)
                for live in (False, True)
            ]
    print(
        json.dumps(
            {
                "schema": 1,
                "environment": machine,
                "limit_mib": MAX_GROWTH_MIB,
                "runs": runs,
                "pass": all(r["pass"] for r in runs),
            },
            indent=1,
        )
    )
    return 0 if all(r["pass"] for r in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
