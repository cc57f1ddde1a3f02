"""MLCommons LoadGen against our own benchmark: do both measure the same latency?

    python -m benchmarks.loadgen BUNDLE [--variant int8] [--data DIR] [--realtime]

LoadGen (`pip install mlcommons-loadgen`, a development tool) asks the same open `Classifier` for
the same frames as `finedge benchmark` does. SingleStream compares the 50th and 90th percentile of a
query, Offline the images per second. Both take turns in blocks, so that drift of the machine meets
both alike. They agree in a number if the medians over the blocks differ by at most 5 %, or if the
ranges of the blocks overlap. LoadGen measures wall time, so here too wall time is measured.
`--realtime` (root) makes other programs wait meanwhile.

A row for each scenario is written to benchmarks/results/loadgen/BUNDLE-VARIANT-threadsN.json, and
printed. Without LoadGen the script prints why it is skipped.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from benchmarks.realtime import realtime as priority
from finedge.bundle import Bundle
from finedge.files import write_text
from finedge.measure import percentile
from finedge.runtime.benchmark.frames import Frames, image_frames, labelled_images, rendered_frames
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.modes import OFFLINE, SINGLE_STREAM, Mode
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.telemetry.environment import environment

RESULTS = Path(__file__).resolve().parent / "results/loadgen"
PACKAGE, MODULE = "mlcommons-loadgen", "mlperf_loadgen"
MIN_BLOCKS = 3
TOLERANCE = 0.05  # of the median over the blocks
WARM_UP_S = 1.0
# LoadGen makes this many more Offline samples than the expected rate asks for.
OFFLINE_SLACK = 1.1
# The percentiles of LoadGen's log, and what they are in a row.
LOGGED = {
    "queries": "result_query_count",
    "p50_ms": "result_50.00_percentile_latency_ns",
    "p90_ms": "result_90.00_percentile_latency_ns",
    "images_per_second": "result_samples_per_second",
}
COMPARED = {SINGLE_STREAM: ("p50_ms", "p90_ms"), OFFLINE: ("images_per_second",)}
Block = Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """How long is measured: `blocks` of `seconds` for each side and scenario."""

    blocks: int
    seconds: float
    batch: int


def main(
    bundle: Positional[Path],
    *,
    variant: str = "int8",
    backend: str = "onnxruntime",
    threads: int = 1,
    blocks: int = 5,
    seconds: float = 4.0,
    batch: int = 8,
    images: int = 32,
    data: Path | None = None,
    realtime: bool = False,
    results: Path = RESULTS,
) -> None:
    """Measure both scenarios with both, write the rows and print them."""
    reason = why_not()
    if reason is not None:
        print(json.dumps({"skipped": reason}))
        return
    loaded, plan = Bundle.load(bundle), Plan(max(blocks, MIN_BLOCKS), seconds, batch)
    frames = frames_of(loaded, data, count=images)
    with Classifier.open(
        loaded, variant=variant, backend=backend, threads=threads, spin=True
    ) as classifier:
        modes = (Mode(SINGLE_STREAM, 1), Mode(OFFLINE, batch))
        lanes = [BenchmarkLane(loaded.name, classifier, mode, frames) for mode in modes]
        facts = what_runs(classifier, frames, threads=threads)
        with priority(realtime):
            rows = [{**facts, **measure(lane, plan)} for lane in lanes]
    record = {"environment": environment(), "realtime": realtime, "rows": rows}
    path = results / f"{loaded.name}-{variant}-threads{threads}.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    json.dump(record, sys.stdout, indent=1)


def why_not() -> str | None:
    """Return why LoadGen cannot measure here, or None."""
    return None if is_installed(MODULE) else f"needs {MODULE}: pip install {PACKAGE}"


def frames_of(bundle: Bundle, data: Path | None, *, count: int) -> Frames:
    """Return images of the test split where there are labelled data, else rendered scenes."""
    options = SplitOptions(data=data)
    labelled = labelled_images(bundle, options)
    if labelled is None:
        return rendered_frames(count)
    return image_frames(labelled.items, count=count, split=options.split)


def what_runs(classifier: Classifier, frames: Frames, *, threads: int) -> dict[str, Any]:
    """Return what is measured, for a row."""
    info = classifier.session.info
    return {
        "bundle": classifier.bundle.name,
        "digest": classifier.bundle.digest(),
        "variant": classifier.variant,
        "backend": info.backend,
        "precision": info.precision,
        "versions": dict(info.versions),
        "threads": threads,
        "frames": f"{len(frames.frames)} {frames.source}",
    }


def measure(lane: BenchmarkLane, plan: Plan) -> dict[str, Any]:
    """Measure a lane with both in turns, the first one changing from block to block."""
    lane.warm_up(WARM_UP_S)
    sides: dict[str, Callable[[], Block]] = {
        "finedge": lambda: our_block(lane, plan.seconds),
        "loadgen": lambda: loadgen_block(lane, plan.seconds),
    }
    blocks: dict[str, list[Block]] = {name: [] for name in sides}
    for i in range(plan.blocks):
        for name in sorted(sides, reverse=bool(i % 2)):
            blocks[name].append(sides[name]())
    # A query of LoadGen's Offline holds all images: its percentiles are no latency of a batch.
    numbers = COMPARED[lane.mode.name]
    compared = {n: compare(*([b[n] for b in blocks[side]] for side in sides)) for n in numbers}
    return {
        "scenario": lane.mode.name,
        "batch": lane.mode.batch,
        "agrees": all(number["agrees"] for number in compared.values()),
        "compared": compared,
        "blocks": {
            name: [{n: block[n] for n in ("queries", *numbers)} for block in values]
            for name, values in blocks.items()
        },
    }


def compare(own: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Compare the same number of our blocks and of LoadGen's."""
    ratio = statistics.median(own) / statistics.median(other)
    overlap = min(own) <= max(other) and min(other) <= max(own)
    return {
        "finedge": round(statistics.median(own), 4),
        "loadgen": round(statistics.median(other), 4),
        "ratio": round(ratio, 4),
        "ranges_overlap": overlap,
        "agrees": abs(ratio - 1) <= TOLERANCE or overlap,
    }


def our_block(lane: BenchmarkLane, seconds: float) -> Block:
    """Ask as `finedge benchmark` does for some seconds."""
    first = len(lane.times.samples_ms.get(TOTAL, ()))
    lane.ask_for(seconds, record=True)
    samples = lane.times[TOTAL][first:]
    return {
        "queries": len(samples),
        "p50_ms": round(percentile(samples, 50), 4),
        "p90_ms": round(percentile(samples, 90), 4),
        "images_per_second": round(1e3 * lane.mode.batch * len(samples) / sum(samples), 2),
    }


def loadgen_block(lane: BenchmarkLane, seconds: float) -> Block:
    """Let LoadGen ask the same classifier for the same frames for some seconds."""
    loadgen = importlib.import_module(MODULE)
    count = len(lane.frames.frames)
    sut = loadgen.ConstructSUT(answerer(loadgen, lane), lambda: None)
    library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
    logs = loadgen.LogSettings()
    logs.enable_trace = False
    try:
        with tempfile.TemporaryDirectory() as folder:
            logs.log_output.outdir = folder
            settings = loadgen_settings(loadgen, lane, seconds)
            loadgen.StartTestWithLogSettings(sut, library, settings, logs)
            return read_log((Path(folder) / "mlperf_log_detail.txt").read_text())
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)


def answerer(loadgen: Any, lane: BenchmarkLane) -> Callable[[Sequence[Any]], None]:
    """Return what LoadGen calls with queries: it classifies them in batches, as the lane does.

    LoadGen's clock runs from its call until `QuerySamplesComplete`.
    """
    size, frames, classifier = lane.mode.batch, lane.frames.frames, lane.classifier

    def answer(samples: Sequence[Any]) -> None:
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            classifier([frames[sample.index] for sample in part])
            responses = [loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part]
            loadgen.QuerySamplesComplete(responses)

    return answer


def loadgen_settings(loadgen: Any, lane: BenchmarkLane, seconds: float) -> Any:
    """Return LoadGen's settings; it plans its queries by the speed that we measured before."""
    rate = lane.images_per_second if lane.times.samples_ms else first_rate(lane)
    settings = loadgen.TestSettings()
    offline = lane.mode.name == OFFLINE
    settings.scenario = getattr(loadgen.TestScenario, "Offline" if offline else "SingleStream")
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1e3 * seconds)
    settings.min_query_count = 1
    settings.single_stream_expected_latency_ns = int(1e9 / rate)
    settings.offline_expected_qps = rate / OFFLINE_SLACK
    return settings


def first_rate(lane: BenchmarkLane) -> float:
    """Return the images per second of one query."""
    return 1e3 * lane.mode.batch / lane.query(record=False)


def read_log(text: str) -> Block:
    """Return the results of LoadGen's detail log: lines of `:::MLLOG` and a JSON object."""
    lines = (json.loads(line.split(" ", 1)[1]) for line in text.splitlines() if ":::MLLOG" in line)
    logged = {line["key"]: line["value"] for line in lines}
    block = {name: logged[key] for name, key in LOGGED.items() if key in logged}
    nanoseconds = {name: round(ns / 1e6, 4) for name, ns in block.items() if name.endswith("_ms")}
    return {**block, **nanoseconds}


if __name__ == "__main__":
    tyro.cli(main)
