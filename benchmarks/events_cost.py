"""What events cost: an insert into the store, a crop as JPEG, and `write` while nobody listens.

    python -m benchmarks.events_cost [--events 10000] [--side 300]

It prints one JSON object a row: CPU time of the process or of the calling thread, and wall time,
in ms. The crops are photos' equals: rendered birds of `side` pixels. `write` is called as the
stream calls it, with a store, a broker and a webhook whose ports nobody listens at.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.soak.broker import commit
from finedge.measure import percentile
from finedge.runtime.events.clips import Recorder
from finedge.runtime.events.notice import Notice
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import open_event_sinks
from finedge.runtime.events.store import Store
from finedge.runtime.sinks import Result
from finedge.runtime.sinks.kept_files import KeptFiles
from finedge.runtime.telemetry.environment import environment
from finedge.synthetic.scene import render_image
from finedge.synthetic.species import SPECIES
from tests.runtime.events.broker import free_port
from tests.runtime.events.make import CONTEXT, make_event


def insert(events: int, notice: Notice) -> dict[str, object]:
    """Put starts and ends of visits; one call is one transaction."""
    with tempfile.TemporaryDirectory() as folder:
        store, wall = Store(Path(folder) / "events.db"), []
        notices = [
            replace(notice, event=replace(notice.event, id=f"{number // 2}", kind=kind))
            for number, kind in enumerate(["started", "ended"] * (events // 2))
        ]
        cpu = time.process_time()
        for one in notices:
            began = time.perf_counter()
            store.put(one)
            wall.append(1e3 * (time.perf_counter() - began))
        cpu = time.process_time() - cpu
        mib = store.bytes / 2**20
        store.close()
    return {
        "row": "store insert",
        "n": events,
        "jpeg_bytes": len(notice.jpeg),
        "cpu_ms": round(1e3 * cpu / events, 4),
        "wall_ms_p50": round(percentile(wall, 50), 4),
        "wall_ms_p99": round(percentile(wall, 99), 4),
        "mib": round(mib, 1),
        "sqlite": sqlite3.sqlite_version,
    }


def encode(crop: np.ndarray) -> dict[str, object]:
    """Make a notice of an event: its crop becomes a JPEG."""
    event = make_event(1, crop=crop)
    times = [thread_ms(lambda: Notice.of(event)) for _ in range(200)]
    return {"row": "crop as JPEG", "side": len(crop), "cpu_ms_p50": round(percentile(times, 50), 4)}


def write_to_nobody(crop: np.ndarray, *, events: int) -> dict[str, object]:
    """Call `write` while the broker and the webhook are away."""
    logging.disable()
    cpu, wall = [], []
    with tempfile.TemporaryDirectory() as folder:
        outputs = EventOutputs(
            store=Path(folder) / "events.db",
            mqtt=f"mqtt://127.0.0.1:{free_port()}",
            webhook=f"http://127.0.0.1:{free_port()}/",
        )
        with open_event_sinks(outputs, CONTEXT) as sinks:
            for number in range(events):
                event = make_event(number, crop=crop)
                began = time.perf_counter()
                cpu.append(thread_ms(lambda: sinks.write(event)))  # noqa: B023
                wall.append(1e3 * (time.perf_counter() - began))
                time.sleep(0.002)
            counts = {name: vars(count) for name, count in sinks.counts.items()}
    return {
        "row": "write, broker and webhook away",
        "n": events,
        "side": len(crop),
        "cpu_ms_p50": round(percentile(cpu, 50), 4),
        "wall_ms_p50": round(percentile(wall, 50), 4),
        "wall_ms_p99": round(percentile(wall, 99), 4),
        "wall_ms_max": round(max(wall), 4),
        "counts": counts,
    }


def record_frames(videos: int, *, frames: int = 150) -> dict[str, object]:
    """Give frames of 1280 x 720 to the recorder of clips, while `videos` visits are open."""
    image = np.repeat(np.repeat(bird(360), 2, axis=0), 4, axis=1)[:, :1280]
    line = {"status": "ok", "top": [{"label": "bird", "p": 0.9}], "age_ms": 10.0}
    context = replace(CONTEXT, names=("cam0",), fps=(15.0,))
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(KeptFiles((), max_bytes=2**40), context, before_s=2.0)
        results = [Result(line, image, 0, number / 15) for number in range(30 + frames)]
        for result in results[:30]:
            recorder.write(result)
        for number in range(videos):
            event = make_event(number)
            recorder.notices.append((event, Path(folder) / f"{number}.mp4"))
        recorder.write(results[30])
        cpu = time.process_time()
        for result in results[31:]:
            recorder.write(result)
        cpu = time.process_time() - cpu
        recorder.close()
    return {
        "row": "a frame of 1280 x 720 for clips",
        "videos": videos,
        "n": frames - 1,
        "cpu_ms": round(1e3 * cpu / (frames - 1), 3),
    }


def thread_ms(call: Callable[[], object]) -> float:
    """Return the CPU time of a call in this thread, in ms."""
    began = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - began)


def bird(side: int) -> np.ndarray:
    """Render a bird: uint8 [side, side, 3]."""
    return render_image(SPECIES[0], np.random.default_rng(1), size=side)


def main() -> None:
    """Measure each row and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=300)
    options = parser.parse_args()
    crop = bird(options.side)
    rows = [
        *(encode(bird(side)) for side in (128, 300, 600)),
        insert(options.events, Notice.of(make_event(1, crop=crop))),
        write_to_nobody(crop, events=1000),
        *(record_frames(videos) for videos in (0, 1, 3)),
    ]
    facts = {
        "cpu": environment()["cpu"],
        "python": platform.python_version(),
        "commit": commit(),
    }
    for row in rows:
        print(json.dumps({**row, **facts}), flush=True)


if __name__ == "__main__":
    main()
