"""What every sink of events does: each is opened by its option, alone."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finedge.runtime.events import outbox
from finedge.runtime.events.event import Name
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import EVENT_SINKS, EventSinks, open_event_sinks
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.sinks import Result
from tests.runtime.events.broker import free_port
from tests.runtime.events.make import CONTEXT, make_event, wait_until

MakeResult = Callable[..., Result]
NEEDS = {"mqtt": "paho", "metrics": "prometheus_client"}


def only(name: str, folder: Path) -> EventOutputs:
    """Return the options that open one sink; nobody listens where it sends."""
    options = {
        "clips": EventOutputs(clips=folder, clip_before_s=1.0),
        "store": EventOutputs(store=folder / "events.db"),
        "mqtt": EventOutputs(mqtt=f"mqtt://127.0.0.1:{free_port()}"),
        "webhook": EventOutputs(webhook=f"http://127.0.0.1:{free_port()}"),
        "metrics": EventOutputs(metrics="127.0.0.1:0"),
    }
    if name in NEEDS and not is_installed(NEEDS[name]):
        pytest.skip(f"{NEEDS[name]} is missing: pip install finedge[events]")
    return options[name]


@pytest.mark.parametrize("name", EVENT_SINKS)
def test_a_sink_takes_every_event_and_changes_none(
    name: str, tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CLOSE_S", 0.3)
    group = Name("a group / 日本", 0.97)
    events = [
        make_event(1),
        make_event(2, answer=None, coarser=group),
        make_event(3, stream=1, source="cam1", answer=None),
        make_event(1, "ended"),
        make_event(2, "ended", answer=None, coarser=group, crop=make_event(9).crop[:3, :5]),
        make_event(3, "ended", stream=1, source="cam1", ended_at=0.0),  # the clock jumped
        make_event(4, "ended"),  # its start was never seen
        make_event(5, "ended", crop=make_event(5).crop[:0]),
    ]
    before = copy.deepcopy(events)
    with open_event_sinks(only(name, tmp_path), CONTEXT) as sinks:
        assert [sink.name for sink in sinks.sinks] == [name]
        for result in (make_result(p=None), make_result(0), make_result(1, stream=1)):
            sinks.see(result)
        for event in events:
            sinks.write(event)
    for event, old in zip(events, before, strict=True):
        assert event.record() == old.record()
        assert (event.crop == old.crop).all()
    wait_until(lambda: f"finedge-{name}" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("name", EVENT_SINKS)
def test_a_run_without_an_event_leaves_no_event(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CLOSE_S", 0.3)
    with open_event_sinks(only(name, tmp_path), CONTEXT) as sinks:
        pass
    assert sinks.counts[name].delivered == 0
    assert [path.name for path in tmp_path.iterdir()] in ([], ["events.db"])


def test_what_is_not_asked_for_is_not_opened() -> None:
    with open_event_sinks(EventOutputs(), CONTEXT) as sinks:
        assert sinks == EventSinks()
        sinks.write(make_event(1))


def test_a_sink_that_cannot_open_closes_those_before_it(tmp_path: Path) -> None:
    outputs = replace(only("store", tmp_path), webhook="ftp://host")
    for _ in range(2):  # the second run would find the store locked
        with pytest.raises(Exception, match="webhook"), open_event_sinks(outputs, CONTEXT):
            pass
