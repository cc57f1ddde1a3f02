"""Save pictures of the live page, of a real run on a rendered scene, with headless Chromium.

    python -m benchmarks.page_picture [--seconds 120] [--out docs/images]

It runs `finedge classify` with a finder and a store, and waits until birds have come and gone.
page.jpg is the page on a desktop and on a phone, visits.jpg a visit with the model's attention and
the timeline on a phone.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from benchmarks.browser import Browser
from finedge.errors import SystemProblem

BUNDLE = Path("examples/birds.finedge")
SCENE = "test://?birds=3&fps=8&seed=4"
DESK, PHONE = (1280, 860), (390, 860)
GAP = 16
OPENED = "document.querySelector('#visit img').naturalWidth >= 320"


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the birds come")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # chromium ends late
        folder = Path(name)
        with run(SCENE, "--find", "motion", "--store", str(folder / "visits.db")) as url:
            time.sleep(options.seconds)
            browser = Browser(folder / "chromium")
            try:
                desk, phone, visit, timeline = take(browser, url, folder)
            finally:
                browser.close()
        beside([desk, phone]).save(options.out / "page.jpg", quality=88)
        beside([visit, timeline]).save(options.out / "visits.jpg", quality=88)


@contextmanager
def run(*arguments: str) -> Iterator[str]:
    """Run `finedge classify` with its page; yield the address of the page."""
    command = [sys.executable, "-m", "finedge", "classify", str(BUNDLE), *arguments]
    command += ["--variant", "int8", "--serve", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"live page: (\S+)", line):
                yield match[1]
                return
        raise SystemProblem("finedge classify ended", fix=f"run it: {' '.join(command)}")
    finally:
        process.terminate()
        process.communicate()


def take(browser: Browser, url: str, folder: Path) -> list[Image.Image]:
    """Return the page on a desktop and on a phone, an opened visit, and the phone's timeline."""
    pictures = []

    def shot(size: tuple[int, int], *scripts: str, dark: bool = False, until: str = "") -> None:
        browser.look(width=size[0], height=size[1], dark=dark)
        browser.open(url)
        browser.wait("document.querySelectorAll('.things rect').length > 0")
        browser.wait(
            "[...document.querySelectorAll('.visit img')].slice(0, 6).every(i => i.complete)"
        )
        for script in scripts:
            browser.value(script)
        browser.wait(until or "true")
        file = folder / "shot.png"
        browser.screenshot(file)
        pictures.append(Image.open(file).convert("RGB").copy())

    shot(DESK)
    shot(PHONE, dark=True)
    attention = "document.querySelector('#visit [value=attention]').click()"
    shot(DESK, "document.querySelector('.visit[data-open=no]').click()", attention, until=OPENED)
    shot(PHONE, "document.getElementById('visits').scrollIntoView()", dark=True)
    return pictures


def beside(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures of one height side by side on white."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet


if __name__ == "__main__":
    main()
