from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.sinks import Context, Outputs, window
from finedge.runtime.sinks.window import open_window, why_not

CONTEXT = Context("tiny", names=("cam",), fps=(25.0,), live=True, stop=lambda: None)

# Frames and a silence in a real window; prints its size as the window system has it.
SHOW_TWICE = """
import cv2, numpy as np
from finedge.runtime.sinks import Context, Outputs, Result
from finedge.runtime.sinks.window import open_window
record = {"status": "ok", "top": [{"label": "red", "p": 0.9}], "age_ms": 1.0}
stop = lambda: print("stopped")
context = Context("tiny", names=("cam",), fps=(25.0,), live=True, stop=stop)
window = open_window(Outputs(show=True), context)
window.write(Result(record, np.zeros((120, 160, 3), np.uint8)))
window.write(Result(record | {"status": "no_signal", "top": [], "age_ms": None}))
print(*cv2.getWindowImageRect("cam")[2:])
window.close()
"""


@pytest.mark.parametrize("display", [None, "127.0.0.1:9999"])
def test_without_a_display_there_is_an_error_and_no_crash(
    display: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(SystemProblem, match="--show"):
        open_window(Outputs(show=True), CONTEXT)


def test_an_opencv_without_windows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cv2.getBuildInformation", lambda: "  GUI:                           NONE\n"
    )
    assert "headless" in str(why_not())


def test_a_display_that_does_not_answer_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(window, "PROBE_S", 0.1)
    assert "no window within 0 s" in str(why_not())


def test_frames_are_shown_in_a_window_named_by_the_source() -> None:
    if shutil.which("xvfb-run") is None:
        pytest.skip("needs a display: apt-get install xvfb")
    run = subprocess.run(
        ["xvfb-run", "-a", sys.executable, "-c", SHOW_TWICE],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "160 120\n"), run.stderr
