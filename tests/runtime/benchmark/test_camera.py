"""Camera mode: offered and answered frames, and that its numbers stay apart.

The age of frames is measured by benchmarks/stream, not asserted here.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.errors import InvalidBenchmark, SourceLost, UsageError
from finedge.measure import percentile
from finedge.runtime.benchmark.camera import CameraLane
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.lane import TOTAL
from finedge.runtime.benchmark.modes import CAMERA, Mode
from finedge.runtime.benchmark.replay import Replay
from finedge.runtime.benchmark.watch import ranking, watch
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend
from finedge.runtime.sources import Frame, SourceInfo
from tests.runtime.benchmark.conftest import run_benchmark

PICTURES = tuple(np.full((8, 8, 3), i, np.uint8) for i in range(3))


def quick(bundle: Bundle, **options: Any) -> dict[str, Any]:
    """Benchmark for a moment; a row that a busy machine made INVALID has its numbers too."""
    try:
        return strict(bundle, **options)
    except InvalidBenchmark as error:
        return error.result or {}


def strict(bundle: Bundle, **options: Any) -> dict[str, Any]:
    """Benchmark for a moment; an INVALID row is an error."""
    return run_benchmark(
        (bundle.path,),
        **{
            "mode": CAMERA,
            "duration": "600ms",
            "threads": 1,
            "images": 6,
            "fps": 100.0,
            "variants": "fp32",
            **options,
        },
    )


def lane(bundle: Bundle, *, latency_s: float = 0.0, fps: float = 100.0) -> CameraLane:
    classifier = Classifier(
        bundle, FakeBackend(latency_s=latency_s).open(bundle, variant="fp32"), "fp32"
    )
    return CameraLane("tiny", classifier, Mode(CAMERA, 1), rendered_frames(4), fps=fps)


class Silent:
    """A camera that is there and says nothing."""

    live = True
    info = SourceInfo("silent", "silent://")

    def __iter__(self) -> Iterator[Frame]:
        time.sleep(1.0)
        yield from ()

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def test_a_replay_rotates_its_frames_at_the_moments_they_are_due() -> None:
    seen = list(itertools.islice(Replay(PICTURES, fps=200.0), 20))
    assert all(
        abs(b.captured_ns - a.captured_ns - (b.index - a.index) * 5_000_000) <= 1
        for a, b in itertools.pairwise(seen)
    )
    assert all(f.image is PICTURES[f.index % 3] for f in seen)
    assert all(f.captured_ns <= time.monotonic_ns() for f in seen)


def test_a_late_reader_gets_the_newest_frame_and_misses_the_others() -> None:
    replay = Replay(PICTURES, fps=100.0)
    frames = iter(replay)
    first = next(frames)
    time.sleep(0.1)
    second = next(frames)
    assert second.index >= 9
    assert replay.missed == second.index - first.index - 1
    assert second.captured_ns > first.captured_ns + 80_000_000


@pytest.mark.parametrize("fps", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(fps: float) -> None:
    with pytest.raises(UsageError, match="fps"):
        Replay(PICTURES, fps=fps)


def test_answers_are_of_different_frames_in_order(
    tiny_bundle: Bundle,
) -> None:
    classifier = Classifier(tiny_bundle, FakeBackend().open(tiny_bundle, variant="fp32"), "fp32")
    seen = watch(
        Replay(PICTURES, fps=200.0),
        classifier,
        finish=ranking(classifier.rank),
        seconds=0.3,
        settle_s=0.1,
    )
    assert all(
        a.index < b.index and a.answered_ns < b.answered_ns for a, b in itertools.pairwise(seen)
    )
    assert all(s.age_ms > 0 for s in seen)
    assert seen[0].index >= 5  # what came while it settled is not among them


def test_a_source_that_gives_nothing_is_lost(tiny_bundle: Bundle) -> None:
    classifier = Classifier(tiny_bundle, FakeBackend().open(tiny_bundle, variant="fp32"), "fp32")
    with pytest.raises(SourceLost, match="no frame was answered"):
        watch(Silent(), classifier, finish=ranking(classifier.rank), seconds=0.1, settle_s=0.0)


def test_of_frames_that_come_too_fast_each_is_answered_or_dropped(tiny_bundle: Bundle) -> None:
    slow = lane(tiny_bundle, latency_s=0.03)
    for _ in range(2):
        slow.ask_for(0.5, record=True)
    record = slow.camera_record()
    assert record["offered"] == record["answered"] + record["dropped"]
    assert record["dropped"] > record["answered"]  # 100 a second come, at most 33 can be answered
    assert (
        record["answered"] == sum(len(block) for block in slow.answered) == len(slow.times[TOTAL])
    )
    assert record["fps_answered"] < record["fps_offered"]


def test_a_block_that_is_not_recorded_leaves_no_trace(tiny_bundle: Bundle) -> None:
    quiet = lane(tiny_bundle)
    quiet.warm_up(0.05)
    assert quiet.ask_for(0.0, record=False) == []
    assert (quiet.answered, quiet.missed, quiet.times.samples_ms) == ([], 0, {})


def test_a_replay_too_fast_for_the_machine_makes_the_row_invalid(
    tiny_bundle: Bundle,
) -> None:
    busy = lane(tiny_bundle)
    busy.ask_for(0.2, record=True)
    busy.missed = busy.offered
    assert "too busy to offer 100 frames a second" in busy.problems()[0]


def test_its_row_stands_beside_the_others_with_its_own_keys(tiny_bundle: Bundle) -> None:
    single, camera = quick(tiny_bundle, mode="camera,single-stream")["rows"]
    assert (single["mode"], single["camera"]) == ("single-stream", None)
    assert (camera["mode"], camera["batch"], camera["camera"]["source"]) == (CAMERA, 1, "replay")
    assert set(camera) == set(single)
    assert set(camera["camera"]) == {
        "source", "fps_offered", "fps_answered", "offered", "answered", "dropped", "missed",
        "age_p50_ms", "age_p90_ms", "age_p95_ms", "age_p99_ms", "age_max_ms",
        "core_share", "find", "find_p50_ms", "find_p95_ms", "idle",
    }  # fmt: skip
    assert camera["n"] == camera["camera"]["answered"]
    assert camera["images_per_second"] == camera["camera"]["fps_answered"]


def test_a_finder_gets_rows_beside_those_without(tiny_bundle: Bundle) -> None:
    options = {"find": "motion", "fps": 15.0, "duration": "1500ms", "images": 30}
    (_, plain, busy, still) = quick(tiny_bundle, mode="camera,single-stream", **options)["rows"]
    cameras = [row["camera"] for row in (plain, busy, still)]
    assert [camera["find"] for camera in cameras] == [None, "motion", "motion"]
    assert "still" in cameras[2]["source"]
    assert cameras[0]["source"] == cameras[1]["source"] != cameras[2]["source"]
    assert plain["camera"]["find_p50_ms"] is None
    assert busy["camera"]["find_p50_ms"] > 0
    assert busy["camera"]["idle"] < busy["camera"]["answered"]
    # What was not classified has no time of the model.
    assert still["camera"]["idle"] == still["camera"]["answered"] > 0
    assert (still["engine_p50_ms"], still["stages_p50_ms"]["preprocess"]) == (None, None)
    assert all(camera["core_share"] > 0 for camera in cameras)
    pytest.importorskip("jinja2")
    from finedge.runtime.report.command import report

    files = report(tiny_bundle.path)
    lines = Path(files["markdown"]).read_text().splitlines()
    claims = [line for line in lines if " with motion " in line]
    # Too few frames for an age at p95: both say what they cost.
    assert ["% of one core" in claim for claim in claims] == [True, True]
    single, camera = Path(files["markdown"]).read_text().split("## Camera")
    assert all(f"| {column} |" in camera for column in ("finder", "find p95", "idle %", "core %"))
    assert "find p95" not in single.split("## What the columns mean")[0]
    assert "find p95" in Path(files["html"]).read_text()


def test_a_finder_without_camera_mode_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="--mode single-stream"):
        quick(tiny_bundle, mode="single-stream", find="motion")


def test_ages_are_kept_frame_by_frame_and_a_percentile_is_one_of_them(tiny_bundle: Bundle) -> None:
    row = quick(tiny_bundle)["rows"][0]
    kept = json.loads(gzip.decompress((tiny_bundle.path / "samples.json.gz").read_bytes()))[
        "lanes"
    ][0]["ms"]
    assert len(kept["age"]) == len(kept[TOTAL]) == row["n"]
    assert row["camera"]["age_p50_ms"] == pytest.approx(percentile(kept["age"], 50), abs=1e-3)
    assert row["camera"]["age_p99_ms"] is None  # fewer than 662 frames


def test_a_percentile_that_too_few_frames_support_is_invalid(tiny_bundle: Bundle) -> None:
    with pytest.raises(InvalidBenchmark, match="p99 was asked for"):
        strict(tiny_bundle, percentile="99")


def test_a_live_source_of_the_users_is_watched(tiny_bundle: Bundle) -> None:
    row = quick(tiny_bundle, source="test://", fps=50.0)["rows"][0]
    assert row["camera"]["source"] == "test://"
    assert row["camera"]["missed"] == 0
    assert row["stages_p50_ms"]["decode"] > 0


def test_a_source_that_waits_for_us_is_refused(tiny_bundle: Bundle, tiny_data: Path) -> None:
    with pytest.raises(UsageError, match="not a live source"):
        quick(tiny_bundle, source=str(tiny_data / "test"), fps=None)


def test_the_report_has_a_table_of_its_own_for_it(tiny_bundle: Bundle) -> None:
    quick(tiny_bundle, mode="camera,single-stream")
    pytest.importorskip("jinja2")
    from finedge.runtime.report.command import report

    text = Path(report(tiny_bundle.path)["markdown"]).read_text()
    single, camera = text.split("## Single-stream")[1].split("## Camera")
    assert "age p95" in camera
    assert "age p95" not in single
