"""A real browser over its debugging pipe, and results to feed the page with."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finedge.runtime.events.event import Event, Kind, Name
from finedge.runtime.find.box import Box
from finedge.runtime.sinks.base import Result
from tests.chromium import CHROMIUM, HEADLESS

HAS_EXTRA = importlib.util.find_spec("uvicorn") is not None
collect_ignore_glob = [] if HAS_EXTRA else ["test_*.py"]
if HAS_EXTRA:
    from finedge.runtime.sinks.live.page import LivePage

FLAGS = [*HEADLESS, "--remote-debugging-pipe", "--disable-dev-shm-usage"]
PATIENCE_S = 30.0  # the machine may be busy with other tests


def made_result(
    index: int = 0,
    *,
    source: str = "test://",
    status: str = "ok",
    stream: int = 0,
    labels: tuple[str, ...] = ("a bird", "a plane"),
    size: tuple[int, int] = (48, 64),
) -> Result:
    """A line as `finedge classify` writes it, with its picture."""
    has_frame = status != "no_signal"
    stages = {"decode": 2.0, "preprocess": 1.0, "infer": 20.0 + index % 7, "post": 0.1}
    record: dict[str, Any] = {
        "schema": 1,
        "source": source,
        "frame": index if has_frame else None,
        "captured_at": "2026-01-01T00:00:00.000Z" if has_frame else None,
        "age_ms": 40.0 if has_frame else None,
        "status": status,
        "top": [{"index": i, "label": label, "p": 0.8 / 4**i} for i, label in enumerate(labels)]
        if has_frame
        else [],
        "ms": stages if has_frame else dict.fromkeys(stages),
        "variant": "int8",
        "backend": "onnxruntime",
        "file": "model.int8.cpu.onnx",
    }
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Result(record, image if has_frame else None, stream)


def made_event(
    number: int = 0,
    *,
    kind: Kind = "ended",
    label: str = "a bird",
    stream: int = 0,
    started_at: float | None = None,
    crop: NDArray[np.uint8] | None = None,
    known: bool = True,
) -> Event:
    """The start or the end of a visit. Visits follow one another in seconds, the last one now."""
    begin = time.time() - 60 + number if started_at is None else started_at
    pixels = np.random.default_rng(number).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    return Event(
        id=f"visit/{number}",
        kind=kind,
        source=f"camera {stream}",
        stream=stream,
        track=number,
        started_at=begin,
        ended_at=begin + 4,
        seconds=4.0,
        frames=40,
        answer=Name(label, 0.8, 0) if known else None,
        coarser=None if known else Name(label, 0.9),
        top=(Name(label, 0.8, 0), Name("a plane", 0.2, 1)),
        box=Box(1, 2, 48, 64, zone="feeder"),
        crop=pixels if crop is None else crop,
        clip=Path("/home/me/clip.mp4"),
    )


@pytest.fixture
def event() -> Callable[..., Event]:
    return made_event


@pytest.fixture
def result() -> Callable[..., Result]:
    return made_result


@pytest.fixture
def serve() -> Iterator[Callable[..., LivePage]]:
    """Open live pages on a port that the system chooses; closed after the test."""
    opened: list[LivePage] = []

    def open_page(address: str = "127.0.0.1:0", **options: Any) -> LivePage:
        opened.append(LivePage(address, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


class Browser:
    """One page of a headless Chromium: its requests, its complaints, and what it shows."""

    def __init__(self, profile: Path) -> None:
        answers_in, browser_out = os.pipe()
        browser_in, commands_out = os.pipe()
        # The pipe is file 3 (commands) and file 4 (answers) of the browser.
        command = f'exec 3<&{browser_in} 4>&{browser_out}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(browser_in, browser_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(browser_in)
        os.close(browser_out)
        self._in, self._out = answers_in, commands_out
        self._buffer, self._number = b"", 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def look(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Choose the screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Run a script in the page and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until a script's value is true, and return it."""
        until = time.monotonic() + PATIENCE_S
        while not (value := self.value(script)):
            assert time.monotonic() < until, (
                f"{script} stays {value}; the page says: {self.value('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """Return what a reader sees."""
        return str(self.value("document.body.innerText"))

    def screenshot(self, file: Path) -> None:
        """Write what is visible, as a PNG."""
        file.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], max(0.0, until - time.monotonic()))[0], (
                "the browser does not answer"
            )
            read = os.read(self._in, 1 << 20)
            assert read, "the browser ended"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(params))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian package: chromium)")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.look()
    chromium.requests.clear()
    chromium.complaints.clear()
    yield chromium
    chromium.call("Page.navigate", url="about:blank")
