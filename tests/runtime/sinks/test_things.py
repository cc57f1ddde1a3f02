"""Lines, text and drawings of a frame with several things, and of events."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from finedge.runtime.events.event import Event, Name
from finedge.runtime.find.box import Box
from finedge.runtime.sinks import Context, Result
from finedge.runtime.sinks.jsonl import EventLines, JsonLines
from finedge.runtime.sinks.overlay import draw
from finedge.runtime.sinks.text_events import TextEvents
from finedge.runtime.sinks.text_lines import TextLines

BASE = {
    "source": "cam",
    "frame": 3,
    "captured_at": "2026-11-28T09:25:40.919Z",
    "age_ms": 9.0,
    "ms": {"find": 1.0, "preprocess": None},
}
IDLE = {**BASE, "status": "idle", "top": []}
IMAGE = np.zeros((72, 128, 3), np.uint8)
CROP = np.zeros((4, 4, 3), np.uint8)


def thing(track: int | None, label: str) -> dict[str, object]:
    top = [{"index": 0, "label": label, "p": 0.9}]
    return {**BASE, "status": "ok", "top": top, "box": [9 * (track or 0), 40, 20, 20],
            "track": track}  # fmt: skip


THINGS = (thing(1, "robin"), thing(2, "wren"))
FRAME = Result(THINGS[0], IMAGE, seconds=0.1, things=THINGS)
EVENT = Event(
    id="id",
    kind="ended",
    source="cam",
    stream=0,
    track=7,
    started_at=0.0,
    ended_at=9.0,
    seconds=9.0,
    frames=80,
    answer=Name("robin", 0.93, 0),
    coarser=None,
    top=(),
    box=Box(0, 0, 4, 4),
    crop=CROP,
)


def test_each_thing_is_a_line_and_a_quiet_frame_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonLines()
    for result in (FRAME, Result(IDLE, IMAGE, things=(), is_quiet=True), Result(IDLE, things=())):
        sink.write(result)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["ok", "ok", "idle"]
    assert [line.get("track") for line in lines] == [1, 2, None]


def test_text_names_the_track() -> None:
    out = io.StringIO()
    context = Context("b", ("cam",), (None,), live=True, stop=lambda: None)
    sink = TextLines(context, Console(file=out, width=100))
    sink.write(FRAME)
    sink.write(Result(IDLE, IMAGE, seconds=0.2, things=()))
    first, second, third = out.getvalue().splitlines()
    assert "#1  robin" in first
    assert "#2  wren" in second
    assert third.split()[1:] == ["idle"]


def test_events_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    EventLines().write(EVENT)
    record = json.loads(capsys.readouterr().out)
    assert (record["event"], record["label"], record["track"]) == ("ended", "robin", 7)
    out = io.StringIO()
    TextEvents(Console(file=out, width=100)).write(EVENT)
    text = " ".join(out.getvalue().split()[1:])
    assert text == "cam #7 ended robin 93.0 % 9.0 s, 80 frames"


def test_each_thing_is_drawn_in_its_box() -> None:
    plain = draw(IMAGE, IDLE)
    drawn = draw(IMAGE, THINGS[0], things=THINGS)
    assert (drawn[40, 9:29].max(axis=1) > 0).all()
    assert (drawn[59, 18:38].max(axis=1) > 0).all()
    assert (plain[45:60, 9:40] == 0).all()
