"""A headless Chromium over its debugging pipe: opens pages, runs scripts, takes pictures."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.report_picture import CHROMIUM, HEADLESS
from finedge.errors import SystemProblem

FLAGS = [*HEADLESS, "--remote-debugging-pipe", "--disable-dev-shm-usage"]
PATIENCE_S = 30.0  # the machine may be busy with other work


class Browser:
    """One page of a headless Chromium: its requests, its complaints, and what it shows.

    Args:
        profile: an empty folder.

    Raises:
        SystemProblem: chromium is not installed.
    """

    def __init__(self, profile: Path) -> None:
        if CHROMIUM is None:
            raise SystemProblem("chromium is not installed", fix="apt-get install chromium")
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
