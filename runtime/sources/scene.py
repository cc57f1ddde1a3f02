"""`test://`: a rendered scene that moves, for trying the way of a camera without one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import TracebackType

from finedge.errors import UsageError
from finedge.runtime.sources.base import Frame, SourceInfo, check_rate
from finedge.synthetic.scene import moving_scene

FPS = 25.0


class Scene:
    """Frames of uint8 [480, 640, 3] RGB at `fps` a second, live: what comes too late is dropped by `Stream`, as with a camera.

    `captured_ns` is the moment rendering ended, `decode_ms` what it took.
    """

    live = True

    def __init__(self, *, fps: float = FPS, seed: int = 0) -> None:
        check_rate(fps)
        self.info = SourceInfo("test", "test://", None, 640, 480, fps)
        self._fps, self._seed = fps, seed

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever."""
        due = time.monotonic_ns()
        for index in itertools.count():
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            start = time.monotonic_ns()
            image = moving_scene(index, seed=self._seed)
            captured = time.monotonic_ns()
            yield Frame(index, captured, image, "test://", (captured - start) / 1e6)
            # A scene that was held up goes on from now: it never bursts to catch up.
            due = max(due + round(1e9 / self._fps), captured)

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def open_scene(uri: str, *, fps: float = FPS, seed: int = 0) -> Scene:
    """Open `test://`; `fps` and `seed` say how fast and which scene."""
    if uri != "test://":
        raise UsageError(f"'{uri}' has something after test://", expected="test://")
    return Scene(fps=fps, seed=seed)
