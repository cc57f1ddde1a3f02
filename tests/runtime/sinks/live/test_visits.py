"""The timeline: what is kept of visits, what the server answers, and what a browser shows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finedge.runtime.events.event import Event
from finedge.runtime.events.notice import Notice
from finedge.runtime.events.store import Store
from finedge.runtime.sinks.live.page import LivePage
from finedge.runtime.sinks.live.visits import CROP_SIDE, MAX_VISITS, VisitLog
from tests.runtime.sinks.live.test_http import TOKEN, ask

Serve, Make = Callable[..., LivePage], Callable[..., Event]
CARDS = "document.querySelectorAll('.timeline .visit').length"


def state(log: VisitLog, **options: Any) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(log.to_json(**options))
    return numbers


def whole(log: VisitLog, make: Make, number: int, **options: Any) -> None:
    """Write the start and the end of a visit."""
    for kind in ("started", "ended"):
        log.write(make(number, kind=kind, **options))


def test_an_end_replaces_its_start_in_the_same_place(event: Make) -> None:
    log = VisitLog()
    log.write(event(0, kind="started", label="unsure"))
    log.write(event(1, kind="started"))
    log.write(event(0, label="sure"))
    now = state(log)
    assert [(v["id"], v["event"], v["label"]) for v in now["visits"]] == [
        ("visit/0", "ended", "sure"),
        ("visit/1", "started", "a bird"),
    ]
    assert sorted(now["today"]) == [[0, "a bird", 1], [0, "sure", 1]]
    assert "clip" not in now["visits"][0]


def test_only_what_changed_is_sent_again(event: Make) -> None:
    log = VisitLog()
    for number in range(3):
        log.write(event(number, kind="started"))
    known = state(log)
    log.write(event(1))
    changed = state(log, after=known["number"], run=known["run"])
    assert [v["id"] for v in changed["visits"]] == ["visit/1"]
    assert len(state(log, after=99, run="another")["visits"]) == 3


def test_memory_is_bounded_and_the_counts_go_on(event: Make) -> None:
    log = VisitLog()
    first = event(0, kind="started")
    log.write(first)
    for number in range(1, MAX_VISITS + 50):
        whole(log, event, number, crop=np.zeros((8, 8, 3), np.uint8))
    assert len(state(log)["visits"]) == MAX_VISITS
    assert log.crop(first.id) is None
    log.write(event(0))  # its start is gone: it is shown again, and counted once
    assert state(log)["today"] == [[0, "a bird", MAX_VISITS + 50]]


def test_a_crop_is_small_and_keeps_no_frame(event: Make) -> None:
    log, frame = VisitLog(), np.zeros((1080, 1920, 3), np.uint8)
    log.write(event(0, crop=frame[:, 100:1800]))
    jpeg = log.crop("visit/0")
    assert jpeg is not None
    assert max(Image.open(io.BytesIO(jpeg)).size) == CROP_SIDE
    assert log.crop("visit/1") is None


def test_counts_begin_again_at_midnight(event: Make) -> None:
    day = [date(2026, 11, 28)]
    log = VisitLog(today=lambda: day[0])
    late = datetime(2026, 11, 28, 23, 59).timestamp()
    log.write(event(0, kind="started", started_at=late))
    assert state(log)["today"] == [[0, "a bird", 1]]
    day[0] = date(2026, 11, 29)
    log.write(event(0, started_at=late))  # it began yesterday
    assert state(log)["today"] == []
    whole(log, event, 1, started_at=late + 120)
    assert state(log)["today"] == [[0, "a bird", 1]]


def test_visits_of_an_earlier_run_are_shown_again(event: Make) -> None:
    log = VisitLog()
    began = datetime.now().timestamp() - 1
    earlier = [
        event(2, kind="started", stream=1, started_at=began),
        event(1, started_at=began - 3 * 86400),
    ]
    crops = {"visit/2": b"jpeg"}
    log.restore([e.record() for e in earlier], crop=crops.get, cameras=("porch", "camera 1"))
    whole(log, event, 3, started_at=began)
    now = state(log)
    assert [(v["id"], v["event"], v["stream"]) for v in now["visits"]] == [
        ("visit/1", "ended", -1),
        ("visit/2", "ended", 1),
        ("visit/3", "ended", 0),
    ]
    assert sorted(now["today"]) == [[0, "a bird", 1], [1, "a bird", 1]]
    assert (log.crop("visit/2"), log.crop("visit/1")) == (b"jpeg", b"")


def test_the_page_begins_with_what_the_store_keeps(
    serve: Serve, event: Make, tmp_path: Path
) -> None:
    path, page = tmp_path / "visits.db", serve()
    page.restore(path, cameras=())  # there is none yet
    store = Store(path)
    for number in range(3):
        store.put(Notice.of(event(number, kind="started", stream=number)))
    store.close()
    page.restore(path, cameras=("camera 0", "camera 1"))
    visits = json.loads(ask(page, "/visits.json")[1])["visits"]
    assert [(v["id"], v["stream"]) for v in visits] == [
        ("visit/0", 0),
        ("visit/1", 1),
        ("visit/2", -1),
    ]
    body = ask(page, "/crop.jpg?id=visit%2F2")[1]
    assert Image.open(io.BytesIO(body)).size == (48, 64)


def test_visits_and_crops_are_served_to_those_who_may_see_them(serve: Serve, event: Make) -> None:
    page, closed = serve(), serve(token=TOKEN)
    for each in (page, closed):
        each.visits.write(event(7))
    (visit,) = json.loads(ask(page, "/visits.json")[1])["visits"]
    assert (visit["id"], visit["stream"], visit["zone"]) == ("visit/7", 0, "feeder")
    answer, body = ask(page, "/crop.jpg?id=visit%2F7")
    assert (answer.status, Image.open(io.BytesIO(body)).size) == (200, (48, 64))
    assert ask(page, "/crop.jpg?id=visit%2F8")[0].status == 404
    assert ask(page, "/visits.json?after=nonsense&run=%00")[0].status == 200
    assert {ask(closed, f"/{path}")[0].status for path in ("visits.json", "crop.jpg?id=x")} == {401}


def test_a_result_brings_its_visits_to_the_page(serve: Serve, result: Any, event: Make) -> None:
    page = serve()
    page.write(replace(result(0), events=(event(3, kind="started"),)))
    assert [v["id"] for v in json.loads(page.visits.to_json())["visits"]] == ["visit/3"]


@pytest.mark.parametrize("width", [1280, 360])
def test_a_reader_sees_visits_and_filters_them(
    serve: Serve, result: Any, event: Make, browser: Any, width: int
) -> None:
    page = serve(cameras=("garden", "a camera with a long name by the door" * 3))
    for stream in range(2):
        page.write(result(0, stream=stream))
    for number in range(12):
        label = ("great tit", "blue tit", "Donaudampfschifffahrtsgesellschaft" * 3)[number % 3]
        whole(page.visits, event, number, label=label, stream=number % 2)
    page.visits.write(event(12, kind="started", known=False, label="a tit"))
    browser.look(width=width, height=800)
    browser.open(page.url)
    browser.wait(f"{CARDS} === 13")
    text = browser.text()
    for shown in ("13 visits today", "great tit", "80.0 %", "here now", "4.0 s", "feeder"):
        assert shown in text, shown
    assert browser.value("document.scrollingElement.scrollWidth") == width
    first = "document.querySelector('.timeline .name').textContent"
    assert browser.value(first) == "a tit90.0 %"  # the newest
    browser.wait("document.querySelectorAll('#tabs .pick').length === 3")
    browser.value("document.querySelector('.counts [value=\"blue tit\"]').click()")
    browser.wait(f"{CARDS} === 4")
    browser.value("document.querySelectorAll('#tabs .pick')[1].click()")
    browser.wait(f"{CARDS} === 2")
    assert browser.value("[...document.querySelectorAll('.tile')].map(t => t.hidden)") == [
        False,
        True,
    ]
    assert "7 visits today" in browser.text()
    whole(page.visits, event, 13, label="blue tit")
    browser.wait(f"{CARDS} === 3")  # without a reload
    browser.value("document.querySelector('.timeline .visit').click()")
    browser.wait("document.querySelector('#visit').open")
    browser.wait("document.querySelector('#visit img').naturalWidth === 48")
    assert "a plane" in browser.value("document.querySelector('#visit').innerText")
    assert browser.complaints == []
    outside = [u for u in browser.requests if not u.startswith((page.url, "blob:", "data:"))]
    assert outside == []


def test_labels_of_visits_are_text(serve: Serve, event: Make, browser: Any) -> None:
    page = serve()
    label = "<img src=x onerror=\"document.title='owned'\">é鳥"
    whole(page.visits, event, 0, label=label)
    browser.open(page.url)
    browser.wait(f"{CARDS} === 1")
    assert browser.value("document.querySelectorAll('.visit .label *').length") == 0
    assert browser.value("document.querySelector('.counts').innerText").count("<img src=x") == 1
    assert browser.value("document.title") == "finedge"
