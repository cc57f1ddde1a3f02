"""`test://`: a rendered scene that moves, to try what a camera does without one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import TracebackType

from finedge.errors import UsageError
from finedge.runtime.sources.base import Frame, SourceInfo, check_rate
from finedge.synthetic.scene import moving_scene

FPS = 25.0


class RenderedScene:
    """Frames of uint8 [480, 640, 3] RGB at `fps` frames a second.

    It is live: `Stream` drops the frames that come too late, as it does for a camera.
    `captured_ns` is the moment when rendering ended, `decode_ms` the time of rendering.
    """

    live = True

    def __init__(self, *, fps: float = FPS, seed: int = 0) -> None:
        check_rate(fps)
        self.info = SourceInfo("test", "test://", None, 640, 480, fps)
        self._fps, self._seed = fps, seed

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever."""
        due_ns = time.monotonic_ns()
        for index in itertools.count():
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            start = time.monotonic_ns()
            image = moving_scene(index, seed=self._seed)
            captured_ns = time.monotonic_ns()
            yield Frame(index, captured_ns, image, "test://", (captured_ns - start) / 1e6)
            # After a delay the scene goes on from now: it never catches up in a burst.
            due_ns = max(due_ns + round(1e9 / self._fps), captured_ns)

    def __enter__(self) -> RenderedScene:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def open_scene(uri: str, *, fps: float = FPS, seed: int = 0) -> RenderedScene:
    """Open `test://` at `fps` frames a second; `seed` chooses the scene."""
    if uri != "test://":
        raise UsageError(f"'{uri}' has something after test://", expected="test://")
    return RenderedScene(fps=fps, seed=seed)
