"""The attention of a crop: where it is drawn, what it costs, and who has none."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from finedge.bundle import Bundle, View
from finedge.errors import FinedgeError, SystemProblem
from finedge.image.decode import decode
from finedge.runtime.classifier import Classifier
from finedge.runtime.events.event import Event
from finedge.runtime.explain.explainer import Explainer
from finedge.runtime.look_twice.window import window
from finedge.runtime.serve.share import share_session
from finedge.runtime.sinks.jpeg import to_jpeg
from finedge.runtime.sinks.live.attention import MAX_WAITING, CropAttention
from finedge.runtime.sinks.live.page import LivePage
from finedge.synthetic.scene import render_image
from finedge.synthetic.species import SPECIES
from tests.runtime.sinks.live.test_http import TOKEN, ask

Serve, Make = Callable[..., LivePage], Callable[..., Event]
CELL = 16  # pixels of a crop between two positions of the map, at most
BIRDS = "examples/birds.finedge"


@pytest.fixture(scope="module")
def classifier() -> Iterator[Classifier]:
    with Classifier.open(BIRDS, variant="fp32") as opened:
        yield share_session(opened)


@pytest.fixture
def attention(classifier: Classifier) -> Iterator[CropAttention]:
    drawn = CropAttention.of(classifier)
    assert drawn is not None
    yield drawn
    drawn.close()


def bird(*, height: int = 400, width: int = 400) -> NDArray[np.uint8]:
    side = max(height, width)
    picture = render_image(SPECIES[0], np.random.default_rng(1), size=side)
    return np.ascontiguousarray(np.asarray(picture)[:height, :width])


def saturation(jpeg: bytes) -> NDArray[np.uint8]:
    return cv2.cvtColor(decode(jpeg).image, cv2.COLOR_RGB2HSV)[..., 1]  # type: ignore[return-value]


@pytest.mark.parametrize(("height", "width"), [(400, 400), (360, 500)])
def test_it_is_drawn_where_explain_finds_it(
    attention: CropAttention, height: int, width: int
) -> None:
    crop = to_jpeg(bird(height=height, width=width))
    drawn = decode(attention(crop)).image
    assert drawn.shape == (height, width, 3)
    explained = Explainer(Bundle.load(BIRDS))(decode(crop).image)
    panel = next(panel for panel in explained.panels if panel.view == attention.view)
    x, y = panel.maps[0].peak
    config, side = Bundle.load(BIRDS).spec.preprocess, len(explained.pixels)
    rows, columns = window((height, width), config, peak=(side / 2, side / 2), share=1.0)
    at = (
        rows.start + y * (rows.stop - rows.start) / side,
        columns.start + x * (columns.stop - columns.start) / side,
    )
    blurred = cv2.GaussianBlur(drawn, (0, 0), 3).max(axis=2).astype(float)
    grey = cv2.GaussianBlur(cv2.cvtColor(decode(crop).image, cv2.COLOR_RGB2GRAY), (0, 0), 3)
    hottest = np.unravel_index(int((blurred - grey).argmax()), grey.shape)
    scale = (rows.stop - rows.start) / side
    assert np.abs(np.subtract(hottest, at)).max() <= CELL * scale
    outside = saturation(attention(crop)).copy()
    outside[rows, columns] = 0
    assert outside.mean() < 2  # grey, but for what JPEG makes of the edge


def test_a_small_crop_is_enlarged_and_one_without_pixels_is_an_error(
    attention: CropAttention,
) -> None:
    small = decode(attention(to_jpeg(np.ascontiguousarray(bird()[:40, :24])))).image
    assert min(small.shape[:2]) == 320
    with pytest.raises(FinedgeError):
        attention(b"no picture")


def test_the_same_crop_is_drawn_once_and_few_wait() -> None:
    gate, calls = threading.Event(), []

    def opened() -> Callable[[bytes], bytes]:
        def draw(crop: bytes) -> bytes:
            calls.append(crop)
            gate.wait(20)
            return crop[::-1]

        return draw

    attention = CropAttention(View("map", "attention", "tap"), "fp32", opened)
    crops = [f"crop {number}".encode() for number in range(MAX_WAITING)]
    answers: dict[bytes, bytes] = {}
    threads = [
        threading.Thread(target=lambda crop=crop: answers.update({crop: attention(crop)}))
        for crop in [*crops, *crops]
    ]
    for thread in threads:
        thread.start()
    while len(attention._drawings) < MAX_WAITING:
        threading.Event().wait(0.01)
    with pytest.raises(SystemProblem, match="other crops"):
        attention(b"one more")
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(calls) == crops
    assert answers == {crop: crop[::-1] for crop in crops}
    assert attention(b"one more") == b"erom eno"
    attention.close()


def test_a_drawing_that_failed_is_tried_again() -> None:
    attempts = iter([MemoryError(), b"drawn"])

    def draw(crop: bytes) -> bytes:
        result = next(attempts)
        if isinstance(result, Exception):
            raise result
        return result

    attention = CropAttention(View("map", "attention", "tap"), "fp32", lambda: draw)
    with pytest.raises(FinedgeError, match="cannot be drawn"):
        attention(b"crop")
    assert attention(b"crop") == b"drawn"
    attention.close()


def test_the_page_serves_it_to_those_who_may_see_it(
    serve: Serve, event: Make, classifier: Classifier
) -> None:
    page, closed = serve(classifier=classifier), serve(classifier=classifier, token=TOKEN)
    for each in (page, closed):
        each.visits.write(event(1, crop=bird(height=100, width=100)))
    answer, body = ask(page, "/attention.jpg?id=visit%2F1")
    assert (answer.status, Image.open(io.BytesIO(body)).size) == (200, (320, 320))
    assert ask(page, "/attention.jpg?id=x")[0].status == 404
    assert ask(closed, "/attention.jpg?id=visit%2F1")[0].status == 401
    shown = json.loads(ask(page, "/state.json")[1])["attention"]
    assert shown == {"title": "looks at blocks.2.1", "variant": "fp32"}


def test_a_bundle_without_a_map_has_none(serve: Serve, event: Make, classifier: Classifier) -> None:
    plain = replace(classifier, bundle=replace(classifier.bundle, views=()))
    page = serve(classifier=plain)
    page.visits.write(event(1))
    assert ask(page, "/attention.jpg?id=visit%2F1")[0].status == 404
    assert json.loads(ask(page, "/state.json")[1])["attention"] is None


def test_a_reader_sees_it_and_goes_on_with_the_keyboard(
    serve: Serve, event: Make, classifier: Classifier, browser: Any
) -> None:
    page = serve(classifier=classifier)
    for number in range(3):
        page.visits.write(event(number, label=f"bird {number}", crop=bird(height=90, width=90)))
    browser.open(page.url)
    browser.wait("document.querySelectorAll('.timeline .visit').length === 3")
    browser.value("document.querySelector('.timeline .visit').click()")
    browser.wait("document.querySelector('#visit img').naturalWidth === 90")
    title = "document.querySelector('#visit h2').textContent"
    assert browser.value(title) == "bird 2"
    browser.value("document.querySelector('#visit [value=attention]').click()")
    browser.wait("document.querySelector('#visit img').naturalWidth === 320")
    assert "looks at blocks.2.1" in browser.text()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert browser.value(title) == "bird 1"
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", windowsVirtualKeyCode=27)
    browser.wait("!document.querySelector('#visit').open")
    browser.wait("document.activeElement.innerText.startsWith('bird 1')")
    assert browser.complaints == []
