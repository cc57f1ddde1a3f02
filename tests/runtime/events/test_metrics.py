from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.events.metrics import MAX_LABELS, Metrics
from finedge.runtime.events.notice import Counts
from finedge.runtime.events.outbox import Outbox
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import open_event_sinks
from finedge.runtime.sinks import Result
from tests.runtime.events.make import CONTEXT, make_event, make_notice, wait_until

parser = pytest.importorskip(
    "prometheus_client.parser",
    reason="prometheus_client is missing: pip install finedge[events]",
)
MakeResult = Callable[..., Result]


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    box = Outbox("store", lambda notice: None)
    box.write(make_notice(1))
    wait_until(lambda: box.counts.delivered)
    served = Metrics(CONTEXT, sinks=[box], address="127.0.0.1:0")
    yield served
    served.close()
    box.close()


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return the samples by name and values of labels, in the order of their names."""
    with urlopen(metrics.url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    families = parser.text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}


def test_frames_ages_and_events_are_counted(metrics: Metrics, make_result: MakeResult) -> None:
    for frame in (0, 1, 5):
        metrics.see(make_result(frame, age_ms=30.0))
    metrics.see(make_result(7, age_ms=99_000.0, status="stale"))
    metrics.see(make_result(p=None, stream=1))
    metrics.write(make_notice(1))
    metrics.write(make_notice(2, answer=None))
    metrics.write(make_notice(2, "ended", answer=None))
    found = scraped(metrics)
    assert found["finedge_frames_captured_total", "cam0"] == 8
    assert found["finedge_frames_dropped_total", "cam0"] == 4
    assert found["finedge_frames_answered_total", "cam0", "ok"] == 3
    assert found["finedge_frames_answered_total", "cam0", "stale"] == 1
    assert found["finedge_no_signal_total", "cam1"] == 1
    assert found["finedge_frame_age_seconds_bucket", "0.02", "cam0"] == 0
    assert found["finedge_frame_age_seconds_bucket", "0.05", "cam0"] == 3
    assert found["finedge_frame_age_seconds_bucket", "+Inf", "cam0"] == 4
    assert found["finedge_frame_age_seconds_count", "cam0"] == 4
    assert found["finedge_frame_age_seconds_sum", "cam0"] == pytest.approx(99.09)
    assert found["finedge_events_total", "ended", "unknown", "cam0"] == 1
    assert found["finedge_visits_open", "cam0"] == 1
    assert found["finedge_sink_delivered_total", "store"] == 1
    assert found["finedge_sink_waiting", "store"] == 0
    assert found["finedge_sink_up", "store"] == 1
    assert metrics.counts == Counts(delivered=3)


def test_the_number_of_series_is_bounded_and_names_are_escaped(metrics: Metrics) -> None:
    from finedge.runtime.events.event import Name

    for number in range(MAX_LABELS + 50):
        label = f'bird "{number}"\n\x1b'
        metrics.write(make_notice(number, "ended", answer=Name(label, 0.9, number)))
    found = scraped(metrics)
    events = {key: value for key, value in found.items() if key[0] == "finedge_events_total"}
    assert len(events) == MAX_LABELS + 1
    assert events["finedge_events_total", "ended", "other", "cam0"] == 50
    assert ("finedge_events_total", "ended", 'bird "3"\\n\\x1b', "cam0") in events


def test_sources_whose_secrets_are_hidden_have_names_of_their_own() -> None:
    names = ("http://cam/***", "http://cam/***", 'a "b"\\\n\x1b')
    context = replace(CONTEXT, names=names, fps=(25.0,) * 3)
    metrics = Metrics(context, address="127.0.0.1:0")
    found = [key[1] for key in scraped(metrics) if key[0] == "finedge_visits_open"]
    metrics.close()
    assert found == ["http://cam/*** (0)", "http://cam/*** (1)", 'a "b"\\\\n\\x1b']


def test_only_one_path_is_served(metrics: Metrics) -> None:
    with pytest.raises(HTTPError, match="404"):
        urlopen(metrics.url.replace("/metrics", "/other"), timeout=10)


@pytest.mark.parametrize(
    ("own", "serves"), [(None, False), ("127.0.0.1:8080", False), ("127.0.0.1:0", True)]
)
def test_beside_a_page_one_server_suffices(own: str | None, serves: bool) -> None:
    context = replace(CONTEXT, page="127.0.0.1:8080")
    with open_event_sinks(EventOutputs(metrics=own), context) as sinks:
        sinks.write(make_event(1))
        assert sinks.metrics is not None
        assert b'finedge_visits_open{source="cam0"} 1.0' in sinks.metrics.text()
        assert hasattr(sinks.metrics, "url") == serves


def test_the_sinks_of_a_run_are_shown_and_the_port_is_freed() -> None:
    outputs = EventOutputs(metrics="127.0.0.1:0", store=None)
    with open_event_sinks(outputs, CONTEXT) as sinks:
        sinks.write(make_event(1))
        (sink,) = sinks.sinks
        assert isinstance(sink, Metrics)
        with pytest.raises(SystemProblem, match="served"):
            Metrics(CONTEXT, address=sink.url.split("/")[2])
        address = sink.url.split("/")[2]
    Metrics(CONTEXT, address=address).close()
    with pytest.raises(UsageError):
        Metrics(CONTEXT, address="nowhere")
