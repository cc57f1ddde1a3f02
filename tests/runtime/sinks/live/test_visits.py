"""The timeline: what is kept of visits, what the server answers, and what a browser shows."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
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
from finedge.runtime.sinks.live import today
from finedge.runtime.sinks.live.archive import AT_ONCE, Archive, span_of
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


def test_a_day_with_very_many_visits_is_still_counted(
    event: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(today, "MAX_COUNTED", 3)
    counts, began = today.TodayCounts(), time.time()
    for number in range(9):
        for kind in ("started", "ended"):
            counts.write(event(number, kind=kind, label=f"{number % 2}", started_at=began))
    assert counts.read() == {(0, "0"): 5, (0, "1"): 4}


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


def stored(path: Path, events: Iterable[Event]) -> Path:
    """Write events of an earlier run."""
    store = Store(path)
    for each in events:
        store.put(Notice.of(each))
    store.close()
    return path


def test_visits_of_an_earlier_run_are_shown_again(event: Make, tmp_path: Path) -> None:
    began = datetime.now().timestamp() - 1
    path = stored(
        tmp_path / "visits.db",
        [
            event(1, stream=2, started_at=began - 3 * 86400),
            event(2, kind="started", stream=1, started_at=began),
        ],
    )
    log = VisitLog(Archive(path, cameras=("porch", "camera 1")))
    whole(log, event, 3, started_at=began)
    now = state(log)
    assert [(v["id"], v["event"], v["stream"]) for v in now["visits"]] == [
        ("visit/1", "ended", -1),
        ("visit/2", "ended", 1),
        ("visit/3", "ended", 0),
    ]
    assert sorted(now["today"]) == [[0, "a bird", 1], [1, "a bird", 1]]
    assert now["archive"] is True
    assert log.crop("visit/2") is not None
    assert log.crop("visit/4") is None


def test_todays_counts_have_all_visits_of_the_store(event: Make, tmp_path: Path) -> None:
    began, tiny = datetime.now().timestamp() - 1, np.zeros((8, 8, 3), np.uint8)
    many = MAX_VISITS + 30
    path = stored(
        tmp_path / "visits.db",
        [event(number, crop=tiny, started_at=began) for number in range(many)],
    )
    log = VisitLog(Archive(path, cameras=("camera 0",)))
    whole(log, event, many, started_at=began)
    # The store has the visits of this run too: each counts once.
    stored(path, [event(many, crop=tiny, started_at=began)])
    now = state(log)
    assert (now["today"], len(now["visits"])) == ([[0, "a bird", many + 1]], MAX_VISITS)


def test_older_visits_come_from_the_store_by_camera_and_label(
    serve: Serve, event: Make, tmp_path: Path
) -> None:
    began = datetime.now().timestamp() - 5000
    path = stored(
        tmp_path / "visits.db",
        [
            event(number, label=f"bird {number % 3}", stream=number % 2, started_at=began + number)
            for number in range(2 * AT_ONCE)
        ],
    )
    page = serve(archive=Archive(path, cameras=("camera 0", "camera 1")))

    def older(query: str) -> list[int]:
        answer, body = ask(page, f"/older.json?{query}")
        assert answer.status == 200
        return [visit["track"] for visit in json.loads(body)["visits"]]

    newest = 2 * AT_ONCE - 1
    assert older(f"before={began + 1e6}") == list(range(newest, newest - AT_ONCE, -1))
    assert older(f"before={began + 7}&camera=1") == [5, 3, 1]
    assert older(f"before={began + 7}&camera=1&label=bird+2") == [5]
    assert older(f"before={began + 7}&camera=7") == []
    for nonsense in ("", "before=x"):
        assert ask(page, f"/older.json?{nonsense}")[0].status == 400
    path.unlink()  # the run's store makes it again
    assert older("before=1") == []


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of Berlin; its summer ends on 2026-10-25 at 03:00."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_day_has_25_hours_where_summer_ends(event: Make, tmp_path: Path, berlin: None) -> None:
    day = [date(2026, 10, 25)]
    times = [datetime(2026, 10, 24, 23, 59), *(datetime(2026, 10, 25, hour) for hour in (0, 2, 23))]
    path = stored(
        tmp_path / "visits.db",
        [event(number, started_at=at.timestamp()) for number, at in enumerate(times)],
    )
    first, last = span_of(day[0])
    assert last - first == 25 * 3600
    log = VisitLog(Archive(path, cameras=("camera 0",)), today=lambda: day[0])
    assert state(log)["today"] == [[0, "a bird", 3]]
    # A board learns the time after the run began: the store is asked for the other day.
    day[0] = date(2026, 10, 24)
    assert state(log)["today"] == [[0, "a bird", 1]]


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
    for shown in ("13 visits today", "Today", "great tit", "90.0 %", "here now", "4.0 s", "feeder"):
        assert shown in text, shown
    assert browser.value("document.scrollingElement.scrollWidth") == width
    first = "document.querySelector('.timeline .visit .label').textContent"
    assert browser.value(first) == "a tit"  # the newest
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


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_reaches_all_visits_of_the_store(
    serve: Serve, event: Make, browser: Any, tmp_path: Path, width: int
) -> None:
    began, tiny = datetime.now().timestamp() - 1000, np.zeros((8, 8, 3), np.uint8)
    labels = ('a "quoted" <b>bird</b>', "Donaudampfschifffahrtsgesellschaft" * 3, "tit", "owl")
    many = MAX_VISITS + AT_ONCE + 20
    path = stored(
        tmp_path / "visits.db",
        [
            event(n, crop=tiny, label=labels[min(3, n % 40)], started_at=began + n)
            for n in range(many)
        ],
    )
    page = serve(archive=Archive(path, cameras=("camera 0",)))
    browser.look(width=width, height=844)
    browser.open(page.url)
    browser.wait(f"{CARDS} === {MAX_VISITS}")
    browser.value("document.getElementById('older').click()")
    browser.wait(f"{CARDS} > {MAX_VISITS}")
    browser.value("[...document.querySelectorAll('.counts .pick')].at(-1).click()")
    browser.value("document.getElementById('older').click()")
    rare = len(range(2, many, 40))
    browser.wait(f"{CARDS} === {rare}")
    browser.value("document.getElementById('older').click()")  # there is nothing more
    browser.wait("document.getElementById('older').hidden")
    assert browser.value("document.scrollingElement.scrollWidth") == width
    assert browser.complaints == []


def test_labels_of_visits_are_text(serve: Serve, event: Make, browser: Any) -> None:
    page = serve()
    label = "<img src=x onerror=\"document.title='owned'\">é鳥"
    whole(page.visits, event, 0, label=label)
    browser.open(page.url)
    browser.wait(f"{CARDS} === 1")
    assert browser.value("document.querySelectorAll('.visit .label *').length") == 0
    assert browser.value("document.querySelector('.counts').innerText").count("<img src=x") == 1
    assert browser.value("document.title") == "finedge"
