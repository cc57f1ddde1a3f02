"""The page in a real browser: on a phone, in the dark, without errors."""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from finedge.runtime.report.command import report
from finedge.runtime.report.html import page
from tests.chromium import CHROMIUM, FLAGS, needs_chromium


def browse(page_file: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={page_file.parent / 'profile'}",
            *extra,
            page_file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@needs_chromium
def test_chromium_shows_the_page_at_360_px_without_sideways_scrolling(
    tmp_path: Path, sample: SimpleNamespace
) -> None:
    # A headless window cannot be 360 px wide, so the page is in a frame of that width. The script
    # of the test, which measures, is outside of it.
    label = f"<script>alert('x')</script>{'long' * 20}"
    inner = html.escape(page(sample.report(first="a-rather-long-name-of-a-bundle", label=label)))
    measure = (
        "const d=f.contentDocument, s=d.querySelectorAll('.scatter');"
        "const shown=Array.from(s, x => getComputedStyle(x).display);"
        "const numbers=[d.scrollingElement.scrollWidth, ...shown, d.scripts.length];"
        "document.body.dataset.result=numbers.join(' ')"
    )
    style = 'id="f" style="border:0" width="360" height="800"'
    (tmp_path / "frame.html").write_text(
        f'<!doctype html><body><iframe {style} srcdoc="{inner}" onload="{measure}"></iframe>'
    )
    done = browse(tmp_path / "frame.html", "--dump-dom")
    assert 'data-result="360 none block 0"' in done.stdout
    assert ":CONSOLE" not in done.stderr


@needs_chromium
@pytest.mark.parametrize(
    ("scheme", "paper"), [("0", (20, 23, 26)), ("1", (251, 251, 249))], ids=["dark", "light"]
)
def test_chromium_paints_dark_and_light(
    tmp_path: Path, scheme: str, paper: tuple[int, int, int], sample: SimpleNamespace
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(sample.report()))
    written = report(tmp_path)
    done = browse(
        Path(written["html"]),
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=1000,900",
        f"--screenshot={tmp_path / 'page.png'}",
    )
    picture_ = Image.open(tmp_path / "page.png").convert("RGB")
    assert picture_.getpixel((3, 3)) == paper
    assert len(picture_.getcolors(maxcolors=1 << 24) or []) > 50
    assert ":CONSOLE" not in done.stderr
