"""The pictures: heat where the numbers are, even where they are even, readable everywhere."""

from __future__ import annotations

import html
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import ImageFont

from finedge.bundle import View
from finedge.runtime.classifier import Ranked
from finedge.runtime.explain.explainer import Explained
from finedge.runtime.explain.grid import AxisPositions, Grid
from finedge.runtime.explain.maps import HeatMap, Panel, full_scale
from finedge.runtime.explain.overlay import draw, enlarged, stretched, ticks
from finedge.runtime.explain.sheet import card, sheet
from finedge.runtime.explain.strip import answer, strip, tiles, wrapped
from tests.chromium import CHROMIUM, FLAGS

SIZE = 64
CELLS = Grid(AxisPositions(16, 8), AxisPositions(16, 8))  # 4 x 4
SHIFTED = Grid(AxisPositions(16, 15.5), AxisPositions(16, 15.5))
SCRIPT = "<script>alert('x')</script>"


def panel_of(*values, unit="share", grid=CELLS, title="looks at layer2.1", **more):
    maps = tuple(HeatMap(np.asarray(v, float), grid) for v in values)
    return Panel(
        View(title, "attention", "tap"),
        title,
        "mean of 4 queries",
        maps,
        unit,
        full_scale([m.values for m in maps], unit),
        **more,
    )


@pytest.fixture
def grey():
    return np.full((SIZE, SIZE, 3), 100, np.uint8)


@pytest.mark.parametrize("grid", [CELLS, SHIFTED])
@pytest.mark.parametrize("place", [(1, 2), (2, 1)])
def test_the_hottest_pixel_is_where_the_position_is_centred(grid, place):
    values = np.zeros((4, 4))
    values[place] = 1
    heat = HeatMap(values, grid)
    drawn = stretched(values, grid, side=320, size=SIZE)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert heat.peak == (grid.x.at(place[1]), grid.y.at(place[0]))
    assert ((column + 0.5) * SIZE / 320, (row + 0.5) * SIZE / 320) == pytest.approx(
        heat.peak, abs=SIZE / 320
    )


def test_beyond_the_last_position_its_value_goes_on_and_nothing_overshoots():
    values = np.random.default_rng(0).uniform(size=(4, 4))
    drawn = stretched(values, SHIFTED, side=320, size=SIZE)
    assert drawn[0, 0] == pytest.approx(values[0, 0])
    assert values.min() - 1e-6 <= drawn.min() <= drawn.max() <= values.max() + 1e-6


def test_an_even_map_is_one_faint_tint_and_a_sharp_one_is_not(grey):
    even = draw(grey, panel_of(np.full((4, 4), 1 / 16))).astype(int)
    nearly = draw(grey, panel_of(np.linspace(0.95, 1.05, 16).reshape(4, 4) / 16)).astype(int)
    sharp = draw(grey, panel_of(np.eye(16)[5].reshape(4, 4))).astype(int)
    assert np.ptp(even, axis=(0, 1)).max() == 0
    assert np.ptp(nearly, axis=(0, 1)).max() < 20
    assert np.ptp(sharp, axis=(0, 1)).max() > 100


def test_the_scale_names_the_uniform_level():
    marks = ticks(panel_of(np.full((4, 4), 1 / 16)))
    assert [(round(t.at, 3), t.text) for t in marks] == [(0, "0"), (0.333, "uniform"), (1, "3x")]
    assert [t.text for t in ticks(panel_of(np.full((4, 4), 0.5), unit="gate"))] == ["0", "1"]


def test_negative_evidence_is_not_drawn(grey):
    values = np.full((4, 4), -5.0)
    values[1, 1] = 2
    drawn = draw(grey, panel_of(values, unit="evidence")).astype(int)
    plain = draw(grey, panel_of(np.zeros((4, 4)), unit="evidence")).astype(int)
    assert (drawn[-80:, -80:] == plain[-80:, -80:]).all()
    assert np.abs(drawn - plain).max() > 50


def test_many_maps_are_small_multiples(grey):
    drawn = draw(grey, panel_of(*np.eye(16)[[0, 5, 15]].reshape(3, 4, 4)))
    assert drawn.shape == enlarged(grey).shape
    hottest = [
        np.unravel_index(q.sum(axis=2).argmax(), q.shape[:2])
        for q in (drawn[:159, :159], drawn[:159, 160:319], drawn[160:319, :159])
    ]
    assert [r < c for r, c in zip(*[[int(v) for v in x] for x in hottest[:2]], strict=True)] == [
        True,
        True,
    ]
    assert min(hottest[2]) > 100


def explained(*panels, label="finch"):
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    return Explained(
        pixels, (Ranked(0, label, 0.9), Ranked(1, "wren", 0.095), Ranked(2, "owl", 0.005)), panels
    )


def test_the_answer_names_what_else_was_likely():
    assert answer(explained()) == "finch 90.0 %, wren 9.5 %"


def test_long_labels_wrap_and_keep_every_letter():
    font = ImageFont.load_default(17)
    lines = list(
        wrapped("for American_Three_toed_Woodpecker rather than Downy_Woodpecker", font, width=200)
    )
    assert len(lines) > 1
    assert all(font.getlength(line) <= 200 for line in lines)
    assert (
        "".join(lines).replace(" ", "")
        == "forAmerican_Three_toed_WoodpeckerratherthanDowny_Woodpecker"
    )


class Assets(HTMLParser):
    """Collects every address the page would load."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name == "src" or (tag == "link" and name == "href")
        ]


def page():
    explanation = explained(
        panel_of(np.full((4, 4), 1 / 16), title=f"looks at {SCRIPT}"),
        label=f"{SCRIPT}{'long' * 20}",
    )
    pictures, heading = tiles(explanation), answer(explanation)
    assert strip(pictures, heading=heading, name="x.jpg").startswith(b"\x89PNG")
    one = card(pictures, name=f"{'folder/' * 20}x.jpg", answer=heading, png="a b.png")
    return sheet([one, one], title="birds", about="about")


def test_the_page_loads_nothing_and_escapes_everything():
    assets = Assets()
    assets.feed(page())
    assert assets.addresses
    assert all(address.startswith("data:") for address in assets.addresses)
    assert "script" not in assets.tags
    assert "a%20b.png" in page()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian package: chromium)")
def test_chromium_shows_the_page_at_360_px_without_sideways_scrolling(tmp_path):
    measure = "document.body.dataset.result=f.contentDocument.scrollingElement.scrollWidth"
    style = 'id="f" style="border:0" width="360" height="800"'
    frame = f'<iframe {style} srcdoc="{html.escape(page())}" onload="{measure}"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html><body>{frame}")
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 'data-result="360"' in done.stdout
    assert ":CONSOLE" not in done.stderr
