"""The page in a real browser: on a desk and on a phone, with a camera and without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.page import LivePage

SIDEWAYS = "document.scrollingElement.scrollWidth"
LIVE = (
    "[...document.querySelectorAll('.tile')].every(tile => tile.dataset.live === 'yes')"
    " && document.querySelectorAll('.tile').length"
)


class Loop:
    """Writes results until it is stopped, and counts them."""

    def __init__(self, page: LivePage, make: Callable[[int], list[Result]]) -> None:
        self.page, self.make, self.written = page, make, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            for result in self.make(self.written):
                self.page.write(result)
            self.written += 1

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def feed() -> Iterator[Callable[..., Loop]]:
    loops: list[Loop] = []

    def start(page: LivePage, make: Callable[[int], list[Result]]) -> Loop:
        loops.append(Loop(page, make))
        return loops[-1]

    yield start
    for loop in loops:
        loop.stop()


def test_a_reader_sees_answer_age_rates_and_latencies(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
) -> None:
    page = serve(title="birds")
    for index in range(200):
        page.write(result(2 * index))
    feed(page, lambda i: [result(400 + i)])
    browser.open(page.url)
    browser.wait(LIVE)
    first = browser.wait("document.querySelector('.tile img').src")
    browser.wait(f"document.querySelector('.tile img').src !== '{first}'")  # pictures go on
    text = browser.text()
    for shown in (
        "birds",
        "int8 · onnxruntime · model.int8.cpu.onnx",
        "a bird",
        "80.0 %",
        "a plane",
        "20.0 %",
        "Live",
        " s old",
        "Frames/s",
        "Dropped",
        "preprocess",
        "p95",
    ):
        assert shown in text, shown
    assert browser.value("document.querySelectorAll('.latency rect').length") == 6 * 40
    assert browser.complaints == []
    assert {
        url.split("?")[0].removeprefix(page.url)
        for url in browser.requests
        if not url.startswith(("blob:", "data:"))
    } == {"", "state.json", "frame.jpg", "visits.json"}


@pytest.mark.parametrize("cameras", [1, 3])
def test_a_phone_shows_it_without_sideways_scrolling(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
    cameras: int,
) -> None:
    names = [f"rtsp://{'a-rather-long-name-of-a-camera' * 3}/{i}" for i in range(cameras)]
    labels = ("Donaudampfschifffahrtsgesellschaft" * 3, "b" * 80)
    page = serve(title="long" * 30, cameras=names)
    feed(page, lambda i: [result(i, stream=stream, labels=labels) for stream in range(cameras)])
    browser.look(width=360, height=800)
    browser.open(page.url)
    browser.wait(f"({LIVE}) === {cameras}")
    assert browser.value(SIDEWAYS) == 360
    assert browser.complaints == []


@pytest.mark.parametrize(("width", "height"), [(740, 360), (932, 430)])
def test_a_phone_on_its_side_shows_the_whole_picture_with_its_answer(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    browser: Any,
    width: int,
    height: int,
) -> None:
    page = serve()
    page.write(result(0, size=(480, 640)))
    browser.look(width=width, height=height)
    browser.open(page.url)
    browser.wait(LIVE)
    bottom = browser.value(
        "Math.max(...[...document.querySelectorAll('.view img, .view .label')]"
        ".map(part => part.getBoundingClientRect().bottom))"
    )
    assert 0 < bottom <= height


def test_the_region_that_the_model_saw_is_drawn_in_its_place(
    serve: Callable[..., LivePage], result: Callable[..., Result], browser: Any
) -> None:
    page, plain = serve(), result(0, size=(480, 640))
    page.write(Result({**plain.record, "roi": [320, 120, 160, 240]}, plain.image))
    browser.open(page.url)
    browser.wait(LIVE)
    box = """(() => {
      const view = document.querySelector('.view').getBoundingClientRect();
      const box = document.querySelector('.roi rect').getBoundingClientRect();
      const scale = Math.min(view.width / 640, view.height / 480);
      const left = (view.width - 640 * scale) / 2, top = (view.height - 480 * scale) / 2;
      const corner = [box.x - view.x - left, box.y - view.y - top];
      return [...corner, box.width, box.height].map(x => Math.round(x / scale / 8));
    })()"""
    assert browser.value(box) == [40, 15, 20, 30]  # in eighths: the line has a width


def test_labels_are_text(
    serve: Callable[..., LivePage], result: Callable[..., Result], browser: Any
) -> None:
    image = "<img src=x onerror=\"document.title='owned'\">"
    label = f"{image}<script>document.title='owned'</script>é鳥\r\nX-A: b"
    page = serve(title="<b>bold</b>")
    page.write(result(0, labels=(label, "b"), source=label))
    browser.open(page.url)
    browser.wait("document.querySelector('.tile .label').textContent")
    assert browser.value("document.querySelector('.tile .label').textContent") == label
    assert (
        browser.value(
            "document.querySelectorAll('.label *, .bars .name *, h2.name *, h1 *').length"
        )
        == 0
    )
    assert browser.value("document.title") == "<b>bold</b>"


@pytest.mark.parametrize(("status", "words"), [("no_signal", "No signal"), ("stale", "Stale")])
def test_a_picture_that_is_not_live_is_grey_and_says_so(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
    status: str,
    words: str,
    tmp_path: Path,
) -> None:
    now = ["ok"]
    page = serve()
    feed(page, lambda i: [result(i, status=now[0])])
    browser.open(page.url)
    browser.wait(LIVE)
    now[0] = status
    browser.wait("document.querySelector('.tile').dataset.live === 'no'")
    assert words in browser.text()
    assert "last frame" in browser.text()
    assert "80.0 %" not in browser.value("document.querySelector('.view').innerText")
    browser.screenshot(tmp_path / "lost.png")
    left, top, right, bottom = browser.value(
        "(r => [r.left, r.top, r.right, r.bottom])"
        "(document.querySelector('.tile img').getBoundingClientRect())"
    )
    box = (int(left) + 20, int(top) + 60, int(right) - 20, int(bottom) - 20)
    picture = Image.open(tmp_path / "lost.png").convert("RGB").crop(box)
    # Random colours went in; grey, with the antialiasing of letters, comes out.
    assert max(max(rgb) - min(rgb) for _, rgb in picture.getcolors(1 << 24)) <= 8
    now[0] = "ok"
    browser.wait(LIVE)


def test_unknown_is_shown_instead_of_a_label(
    serve: Callable[..., LivePage], result: Callable[..., Result], browser: Any
) -> None:
    page = serve()
    page.write(result(0, status="unknown"))
    browser.open(page.url)
    browser.wait("document.querySelector('.tile .label').textContent === 'unknown'")
    assert browser.value("document.querySelector('.answer .p').textContent") == ""


def test_a_program_that_ended_leaves_no_picture_that_looks_live(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
) -> None:
    page = serve()
    loop = feed(page, lambda i: [result(i)])
    browser.open(page.url)
    browser.wait(LIVE)
    loop.stop()
    page.close()
    browser.wait("document.querySelector('.tile').dataset.status === 'lost'")
    assert "Nothing below is live" in browser.text()
    again = serve(page.url.removeprefix("http://").rstrip("/"))
    feed(again, lambda i: [result(i)])
    browser.wait(LIVE)  # without a reload
    assert browser.value("document.getElementById('alarm').hidden")


def test_the_token_leaves_the_address_bar_and_the_cookie_replaces_it(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
) -> None:
    page = serve(token="a-token-of-some-length_1")
    feed(page, lambda i: [result(i)])
    browser.open(f"{page.url}?token=a-token-of-some-length_1")
    browser.wait(LIVE)
    assert browser.value("location.href") == page.url
    assert browser.value("document.cookie") == ""  # HttpOnly
    assert sum("token" in url for url in browser.requests) == 1


def test_a_page_goes_on_when_the_run_is_started_again_with_its_token(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    feed: Callable[..., Loop],
    browser: Any,
) -> None:
    token = "a-token-of-some-length_1"
    page = serve(token=token)
    loop = feed(page, lambda i: [result(i)])
    browser.open(f"{page.url}?token={token}")
    browser.wait(LIVE)
    loop.stop()
    page.close()
    browser.wait("document.querySelector('.tile').dataset.status === 'lost'")
    again = serve(page.url.removeprefix("http://").rstrip("/"), token=token)
    feed(again, lambda i: [result(i, labels=("a new bird", "a plane"))])
    browser.wait("document.querySelector('.tile .label').textContent === 'a new bird'")
    browser.wait(LIVE)


def test_each_thing_that_was_found_has_its_box_and_its_label(
    serve: Callable[..., LivePage], result: Callable[..., Result], browser: Any
) -> None:
    page, plain = serve(), result(0, size=(480, 640))
    lines = [
        plain.record | {"box": box, "status": status, "top": [{"label": label, "p": 0.9}]}
        for box, status, label in (
            ([320, 120, 160, 240], "ok", "<b>wren</b>"),
            ([0, 0, 64, 48], "unknown", "owl"),
        )
    ]
    page.write(Result(lines[0], plain.image, things=tuple(lines)))
    browser.open(page.url)
    browser.wait(LIVE)
    boxes = browser.value(
        "(() => { const view = document.querySelector('.view').getBoundingClientRect();"
        " return [...document.querySelectorAll('.things rect')].map(r => {"
        " const b = r.getBoundingClientRect(), scale = view.width / 640; return"
        " [b.x - view.x, b.y - view.y, b.width, b.height].map(n => Math.round(n / scale / 8)); })"
        " })()"
    )
    assert boxes == [[40, 15, 20, 30], [0, 0, 8, 6]]  # in eighths: the line has a width
    words = "[...document.querySelectorAll('.things text')].map(t => t.textContent)"
    assert browser.value(words) == ["<b>wren</b> 90 %", "unknown"]
    assert "unknown, perhaps owl" in browser.text()
    page.write(Result({**plain.record, "status": "idle", "top": []}, plain.image, things=()))
    browser.wait("document.querySelectorAll('.things rect').length === 0")
    browser.wait("document.body.innerText.includes('Nothing is there now.')")


@pytest.mark.parametrize(
    ("dark", "paper"), [(True, (20, 23, 26)), (False, (251, 251, 249))], ids=["dark", "light"]
)
def test_dark_and_light(
    serve: Callable[..., LivePage],
    browser: Any,
    tmp_path: Path,
    dark: bool,
    paper: tuple[int, int, int],
) -> None:
    browser.look(dark=dark)
    browser.open(serve().url)
    browser.wait("document.querySelectorAll('.tile').length")
    browser.screenshot(tmp_path / "page.png")
    assert Image.open(tmp_path / "page.png").convert("RGB").getpixel((3, 3)) == paper
