"""`--require-faster`, the share of the INT8 peak, and what a report says about `auto`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from finedge.bundle import Bundle
from finedge.errors import FinedgeError
from finedge.measure import StageTimes
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.modes import SINGLE_STREAM, Mode
from finedge.runtime.benchmark.peak import peak_record
from finedge.runtime.benchmark.speeds import check_faster, int8_verdicts
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend
from finedge.runtime.ort.int8_peak import int8_peak
from finedge.runtime.report.verdict import verdicts
from finedge.runtime.variant.choose import SWITCH
from tests.runtime.benchmark.conftest import run_benchmark
from tests.runtime.variant.conftest import GivenTimer

PER_BLOCK = 3


def lane(bundle: Bundle, variant: str, blocks_ms: Sequence[float]) -> BenchmarkLane:
    """Return a lane that recorded three queries a block, one of them disturbed."""
    classifier = Classifier(bundle, FakeBackend().open(bundle, variant=variant), variant)
    samples = [ms for block in blocks_ms for ms in (block, block, 100.0)]
    starts = list(range(0, len(samples), PER_BLOCK))
    mode, times = Mode(SINGLE_STREAM, 1), StageTimes({TOTAL: samples})
    return BenchmarkLane("tiny", classifier, mode, rendered_frames(1), times, starts)


@pytest.mark.parametrize(
    ("int8_ms", "words"),
    [
        ([1.0] * 8, ""),
        ([2.0] * 8, "INT8 is not faster than FP32: 1.00x"),
        ([3.0] * 8, "INT8 is not faster than FP32: 0.67x"),
        ([1.0, 3.0] * 4, "INT8 shows no difference in speed from FP32"),
        ([1.0] * 7, "too few blocks"),
    ],
)
def test_int8_must_be_faster_beyond_noise(
    tiny_bundle: Bundle, int8_ms: list[float], words: str
) -> None:
    lanes = [
        lane(tiny_bundle, "fp32", [2.0] * len(int8_ms)),
        lane(tiny_bundle, "int8", int8_ms),
    ]
    of_int8 = int8_verdicts(lanes)
    assert list(of_int8) == ["tiny single-stream"]
    if not words:
        check_faster(of_int8, {})
        return
    with pytest.raises(FinedgeError, match="not shown to be faster") as failure:
        check_faster(of_int8, {"rows": 2})
    assert words in failure.value.what
    assert (failure.value.exit_code, failure.value.result) == (1, {"rows": 2})


def test_without_a_float_row_nothing_is_shown(tiny_bundle: Bundle) -> None:
    with pytest.raises(FinedgeError, match="both an INT8 row and a float row"):
        check_faster(int8_verdicts([lane(tiny_bundle, "int8", [1.0] * 8)]), {})


def test_the_report_is_written_and_says_what_auto_runs(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "on")
    timer = GivenTimer()
    monkeypatch.setattr("finedge.runtime.variant.choose.interleaved", lambda **_: timer)
    options = {"duration": "90ms", "threads": 1, "images": 2}
    with pytest.raises(FinedgeError, match="too few blocks") as failure:
        run_benchmark([tiny_bundle.path], require_faster=True, **options)
    assert (failure.value.exit_code, timer.runs) == (1, 1)
    report = json.loads((tiny_bundle.path / "report.json").read_text())
    choice = report["choices"]["tiny"]
    texts = [sentence.text for sentence in verdicts(report)]
    variant = choice["variant"].upper()
    assert f"tiny: auto runs {variant} on this machine. {choice['reason']}." in texts


MACS = 10**6


def test_the_share_of_the_int8_peak_is_of_the_counted_operations(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finedge.runtime.benchmark.peak.int8_peak", lambda threads: 4e9)
    record = {"attention_cost": {"macs": {"int8": MACS}}}
    counted = tiny_bundle.extend("export", {}, record)
    with (
        Classifier.open(counted, variant="int8", threads=1) as int8,
        Classifier.open(counted, variant="fp32", threads=1) as fp32,
        Classifier.open(tiny_bundle.path, variant="int8", threads=1) as again,
    ):
        mode, frames = Mode(SINGLE_STREAM, 2), rendered_frames(1)
        lanes = [BenchmarkLane("tiny", c, mode, frames) for c in (int8, fp32)]
        records = [peak_record(lane, infer_ms=1.0, threads=1) for lane in lanes]
    # 2 frames of a million in a millisecond are 2e9 a second: half of the peak.
    assert records == [{"gmacs_per_s": 2.0, "share": 0.5}, None]
    assert again.bundle.export.attention_cost.macs == {"int8": MACS}


def test_the_peak_is_a_measured_speed() -> None:
    assert int8_peak(1) > 0
