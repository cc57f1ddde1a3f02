"""The page of the answers: escaped, self-contained, and whole on a phone."""

from __future__ import annotations

import html
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.confusion.counts import Confusion
from finedge.data import Item
from tests.chromium import CHROMIUM, FLAGS, needs_chromium

pytest.importorskip("jinja2")
from finedge.pages.answers import AnswersPage, answers_page
from finedge.pages.curves import curves

SCRIPT = "<script>alert('x')</script>"
BAND = [0.4, 0.6]


def epochs(count: int) -> list[dict]:
    val = {"top1": 0.5, "wilson95": BAND}
    return [{"epoch": i + 1, "loss": 2 / (i + 1), "lr": 0.1, "val": val} for i in range(count)]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a_b.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), 120, np.uint8))
    return path


def page(image: Path, *, classes: int, rows: int = 3, label: str = "") -> str:
    labels = tuple(f"{label}class_{i}" for i in range(classes))
    truths = np.repeat(np.arange(classes), 3)
    answers = np.where(np.arange(len(truths)) % 3 == 0, (truths + 1) % classes, truths)
    items = tuple(Item(image, int(truth)) for truth in truths)
    confusion = Confusion(labels, items, answers.astype(np.int64))
    return answers_page(AnswersPage("run", "about", confusion, ("a doubt",), epochs(rows)))


class Tags(HTMLParser):
    """Collects the tags and the addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("classes", [2, 12, 200])
def test_the_page_loads_nothing_and_escapes_everything(image: Path, classes: int) -> None:
    tags = Tags()
    tags.feed(page(image, classes=classes, label=SCRIPT))
    assert "script" not in tags.tags
    assert tags.tags.count("img") == 2 * min(12, classes)
    assert all(address.startswith("data:") for address in tags.addresses)


def test_few_classes_are_a_table_and_many_also_a_picture(image: Path) -> None:
    few, many = page(image, classes=12), page(image, classes=200)
    assert 'id="matrix"' not in few
    assert few.count("<th scope") == 12
    assert 'id="matrix"' in many
    assert 1 < many.count("<th scope") < 20
    drawn = re.findall(r'<path class="(?:right|wrong)" fill-opacity="\S+" d="(\S[^"]*)"', many)
    assert sum(path.count("M") for path in drawn) == 400


def test_an_empty_split_and_missing_files_still_give_a_page(tmp_path: Path) -> None:
    empty = Confusion(("a", "b"), (), np.zeros(0, np.int64))
    assert "No image was measured" in answers_page(AnswersPage("run", "", empty))
    gone = Confusion(("a", "b"), (Item(tmp_path / "gone.jpg", 0),), np.array([1]))
    assert "gone.jpg" in answers_page(AnswersPage("run", "", gone))


def test_a_curve_needs_its_numbers_only() -> None:
    rows = [{"epoch": 1, "loss": 2.0, "val": {"top1": None, "wilson95": None}}]
    assert [curve.title for curve in curves(rows)] == ["training loss"]
    loss, top1, _ = curves(epochs(100))
    assert (len(loss.points), len(loss.dots), len(top1.band)) == (100, 1, 200)


@needs_chromium
def test_chromium_shows_the_page_at_360_px_without_sideways_scrolling(
    image: Path, tmp_path: Path
) -> None:
    inner = html.escape(page(image, classes=40, label="long" * 15))
    measure = "document.body.dataset.result=f.contentDocument.scrollingElement.scrollWidth"
    style = 'id="f" style="border:0" width="360" height="800"'
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe {style} srcdoc="{inner}" onload="{measure}"></iframe>'
    )
    words = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(
        [str(CHROMIUM), *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert 'data-result="360"' in done.stdout
    assert ":CONSOLE" not in done.stderr
