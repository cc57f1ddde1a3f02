"""The site builds strictly, loads nothing from the network, and fits a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE = 390  # pixels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'finedge[docs]'")
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^ >]*")
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\((?:https?:)?//|@import", sheet.read_text()), sheet


def test_no_path_of_this_machine_is_in_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(), page


def test_the_python_api_is_filled_from_the_docstrings(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in ("runtime.classifier.Classifier.open", "bundle.Bundle.load", "measure.wilson95"):
        assert f'id="finedge.{name}"' in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian package: chromium)")
def test_no_page_scrolls_sideways_on_a_phone(site: Path, tmp_path: Path) -> None:
    # A headless window cannot be that narrow: each page is measured in a frame of a phone's width.
    pages = sorted(site.rglob("*.html"))
    frames = "".join(
        f'<iframe width="{PHONE}" height="800" src="{page.as_uri()}"></iframe>' for page in pages
    )
    script = (
        "onload=()=>{document.body.dataset.widths=Array.from(document.querySelectorAll('iframe'),"
        "f=>f.contentDocument.scrollingElement.scrollWidth).join(' ')}"
    )
    (tmp_path / "frames.html").write_text(
        f"<!doctype html><body>{frames}<script>{script}</script></body>"
    )
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=4000",
            "--dump-dom",
            (tmp_path / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    widths = re.findall(r'data-widths="([\d ]+)"', done.stdout)
    assert widths, done.stderr[-2000:]
    wide = [
        page.name
        for page, width in zip(pages, map(int, widths[0].split()), strict=True)
        if width > PHONE
    ]
    assert not wide
