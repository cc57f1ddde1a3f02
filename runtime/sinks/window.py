"""The frames with their labels in a window."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SystemProblem
from finedge.runtime.sinks.base import Context, Outputs, Result
from finedge.runtime.sinks.overlay import draw

ENDING_KEYS = (ord("q"), 27)  # 27 is Esc
# OpenCV's Qt and GTK abort the whole process where they cannot reach the display: a child process
# tries it first.
PROBE = "import cv2; cv2.namedWindow('finedge'); cv2.pollKey(); cv2.destroyAllWindows()"
PROBE_S = 30.0


class Window:
    """One window for each source, named by it; q, Esc or closing one calls `stop`.

    Args:
        names: the sources' names.
        stop: ends the run.

    Raises:
        SystemProblem: this machine cannot show a window.
    """

    def __init__(self, names: tuple[str, ...], *, stop: Callable[[], None]) -> None:
        reason = why_not()
        if reason:
            raise SystemProblem(
                f"--show: {reason}",
                expected="a screen, and OpenCV with windows",
                fix="--serve 127.0.0.1:8080 shows the same in a browser",
            )
        self._names, self._stop = names, stop
        self._last: list[NDArray[np.uint8] | None] = [None] * len(names)

    def write(self, result: Result) -> None:
        """Show a frame; a silence shows the last one again, with its status."""
        image = result.image if result.image is not None else self._last[result.stream]
        if image is None:
            return
        self._last[result.stream], name = image, self._names[result.stream]
        cv2.imshow(name, draw(image, result.record, things=result.things or ()))
        key = cv2.pollKey() & 0xFF  # first: a window is visible only after its events ran
        if key in ENDING_KEYS or cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1:
            self._stop()

    def close(self) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()


def why_not() -> str | None:
    """Return why this machine cannot show a window, or None."""
    lines = (line.strip() for line in cv2.getBuildInformation().splitlines())
    toolkits = (line.partition(":")[2].strip() for line in lines if line.startswith("GUI:"))
    if next(toolkits, "NONE") == "NONE":
        return f"this OpenCV ({cv2.__version__}) was built without windows (opencv-python-headless)"
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in displays):
        return "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set"
    command = [sys.executable, "-c", PROBE]
    try:
        probe = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"OpenCV opened no window within {PROBE_S:.0f} s: does the display answer?"
    if probe.returncode:
        return f"OpenCV cannot open a window: {probe.stderr.strip() or probe.returncode}"
    return None


def open_window(outputs: Outputs, context: Context) -> Window | None:
    """Return the sink of --show.

    It stays in the caller's thread: windows belong to the main one.
    """
    return Window(context.names, stop=context.stop) if outputs.show else None
