"""What the attention of crops costs: CPU time of a drawing, and the age of frames meanwhile.

    python -m benchmarks.attention_cost [--blocks 8] [--seconds 8]

It prints one JSON object a row. `age` rows are of `finedge classify --serve` on a rendered scene:
in every other block one client asks for drawings without a pause, each of another crop. Blocks
alternate, so that other work of the machine disturbs both kinds alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.error import HTTPError

import numpy as np

from benchmarks.events_cost import bird
from benchmarks.soak.broker import commit
from finedge.measure import percentile
from finedge.runtime.classifier import Classifier
from finedge.runtime.events.notice import Notice
from finedge.runtime.events.store import Store
from finedge.runtime.sinks.jpeg import to_jpeg
from finedge.runtime.sinks.live.attention import CropAttention
from finedge.runtime.telemetry.environment import environment
from tests.runtime.events.make import make_event

BUNDLE = Path("examples/birds.finedge")
SCENE = "test://?birds=3&fps=8&seed=1"
SIDE, CROPS = 300, 2000


def crops() -> Iterator[np.ndarray]:
    """Yield crops of one bird, each with another noise."""
    picture, rng = np.asarray(bird(SIDE), np.int16), np.random.default_rng(0)
    while True:
        noise = rng.integers(-4, 5, picture.shape, dtype=np.int16)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def drawing(variant: str, *, n: int = 50) -> dict[str, object]:
    """Draw crops in this process, which does nothing else."""
    with Classifier.open(BUNDLE, variant=variant) as classifier:
        attention = CropAttention.of(classifier)
        assert attention is not None
        made = crops()
        began = time.process_time()
        attention(to_jpeg(next(made)))
        first = time.process_time() - began
        jpegs, times = [to_jpeg(next(made)) for _ in range(n)], []
        for jpeg in jpegs:
            began = time.process_time()
            attention(jpeg)
            times.append(1e3 * (time.process_time() - began))
        attention.close()
    return {
        "row": "a drawing",
        "variant": variant,
        "side": SIDE,
        "n": n,
        "cpu_ms_p50": round(percentile(times, 50), 2),
        "first_cpu_ms": round(1e3 * first, 1),
    }


def ages(*, blocks: int, seconds: float) -> Iterator[dict[str, object]]:
    """Compare the age of frames with and without drawings."""
    seen: dict[bool, list[float]] = {False: [], True: []}
    is_drawing, drawn = threading.Event(), 0
    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder) / "visits.db", crops()
        store = Store(path)
        for number in range(CROPS):
            store.put(Notice.of(make_event(number, "ended", crop=next(made))))
        store.close()
        command = [sys.executable, "-m", "finedge", "classify", str(BUNDLE), SCENE]
        command += ["--find", "motion", "--store", str(path), "--variant", "int8"]
        command += ["--serve", "127.0.0.1:0"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            url = next(m[1] for line in process.stderr if (m := re.search(r"page: (\S+)", line)))

            def read() -> None:
                for line in process.stdout or ():
                    age = json.loads(line)["age_ms"]
                    if age is not None:
                        seen[is_drawing.is_set()].append(age)

            threading.Thread(target=read, daemon=True).start()
            ids = (f"visit-{number}" for number in count(1))
            for _ in range(2):  # the first opens the model
                with suppress(HTTPError):
                    urllib.request.urlopen(f"{url}attention.jpg?id=visit-0", timeout=60).read()
            time.sleep(seconds)
            seen[False].clear()
            for block in range(blocks):
                until = time.monotonic() + seconds
                if block % 2:
                    is_drawing.set()
                while time.monotonic() < until:
                    if not block % 2:
                        time.sleep(0.1)
                        continue
                    urllib.request.urlopen(f"{url}attention.jpg?id={next(ids)}", timeout=60).read()
                    drawn += 1
                is_drawing.clear()
            process.terminate()
    for is_on, values in seen.items():
        yield {
            "row": "age of frames",
            "drawing": is_on,
            "drawings_a_second": round(drawn / (blocks // 2 * seconds), 2) if is_on else 0,
            "n": len(values),
            "age_ms_p50": round(percentile(values, 50), 1),
            "age_ms_p95": round(percentile(values, 95), 1),
        }


def main() -> None:
    """Measure each row and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    facts = {
        "cpu": environment()["cpu"],
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "commit": commit(),
    }
    for variant in ("fp32", "int8"):
        print(json.dumps(drawing(variant) | facts), flush=True)
    for row in ages(blocks=options.blocks, seconds=options.seconds):
        print(json.dumps(row | facts), flush=True)


if __name__ == "__main__":
    main()
