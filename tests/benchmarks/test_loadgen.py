"""benchmarks/loadgen.py: what needs no LoadGen, and one short real run where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import loadgen
from finedge.bundle import Bundle
from finedge.runtime.backend import SessionOptions
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.modes import OFFLINE, SINGLE_STREAM, Mode
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend

BIRDS = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"
LOG = """:::MLLOG {"key": "result_query_count", "value": 116}
:::MLLOG {"key": "result_50.00_percentile_latency_ns", "value": 7952091}
:::MLLOG {"key": "result_90.00_percentile_latency_ns", "value": 12595611}
"""


@pytest.fixture
def lane():
    bundle = Bundle.load(BIRDS)
    session = FakeBackend(SessionOptions()).open(bundle, variant="fp32")
    classifier = Classifier(bundle, session, "fp32")
    return BenchmarkLane("birds", classifier, Mode(OFFLINE, 4), rendered_frames(2))


def test_the_log_gives_queries_and_milliseconds():
    assert loadgen.read_log(LOG) == {"queries": 116, "p50_ms": 7.9521, "p90_ms": 12.5956}


@pytest.mark.parametrize(
    ("own", "other", "agrees", "overlap"),
    [
        ([1.0, 1.0, 1.0], [1.04, 1.04, 1.04], True, False),
        ([1.0, 1.0, 1.0], [1.2, 1.2, 1.2], False, False),
        ([1.0, 1.0, 1.3], [1.2, 1.2, 1.2], True, True),
    ],
    ids=["within 5 %", "apart", "ranges overlap"],
)
def test_numbers_agree_within_5_percent_or_by_their_ranges(own, other, agrees, overlap):
    compared = loadgen.compare(own, other)
    assert (compared["agrees"], compared["ranges_overlap"]) == (agrees, overlap)


def test_every_sample_is_answered_once_in_batches_of_the_lane(lane):
    answered = []
    api = SimpleNamespace(
        QuerySampleResponse=lambda number, data, size: number,
        QuerySamplesComplete=answered.append,
    )
    samples = [SimpleNamespace(id=i, index=i % 2) for i in range(6)]
    loadgen.answerer(api, lane)(samples)
    assert answered == [[0, 1, 2, 3], [4, 5]]


def test_without_loadgen_the_reason_is_printed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(loadgen, "is_installed", lambda name: False)
    loadgen.main(tmp_path, results=tmp_path / "results")
    assert "mlcommons-loadgen" in json.loads(capsys.readouterr().out)["skipped"]
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_loadgen_measures_what_our_benchmark_measures(lane):
    pytest.importorskip("mlperf_loadgen", reason="pip install mlcommons-loadgen")
    lane.classifier.session.backend.latency_s = 0.02  # a sleep, so that noise is small beside it
    lane.mode = Mode(SINGLE_STREAM, 1)
    row = loadgen.measure(lane, loadgen.Plan(blocks=3, seconds=0.5, batch=1))
    assert [len(blocks) for blocks in row["blocks"].values()] == [3, 3]
    assert all(block["p50_ms"] >= 20 for blocks in row["blocks"].values() for block in blocks)
