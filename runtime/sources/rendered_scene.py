"""`test://`: a rendered scene that moves, to try what a camera does without one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import parse_qsl

from finedge.errors import UsageError
from finedge.runtime.sources.base import Frame, SourceInfo, check_rate
from finedge.synthetic.backdrop import Image
from finedge.synthetic.flock import Flock
from finedge.synthetic.scene import HEIGHT, WIDTH, moving_scene

FPS = 25.0
FORM = "test://, or test://?birds=3&fps=15&seed=1 (birds 0 to 6, seed 0 or more)"
MAX_BIRDS = 6


@dataclass(frozen=True)
class OneBird:
    """The scene of `test://`: one bird that fills the picture."""

    seed: int = 0
    width: int = WIDTH
    height: int = HEIGHT

    def frame(self, index: int) -> Image:
        """Return frame `index`, uint8 [480, 640, 3] RGB."""
        return moving_scene(index, seed=self.seed)


class RenderedScene:
    """Frames of a scene, uint8 [H, W, 3] RGB, at `fps` frames a second.

    It is live: `Stream` drops the frames that come too late, as it does for a camera.
    `captured_ns` is the moment when rendering ended, `decode_ms` the time of rendering.
    """

    live = True

    def __init__(
        self, scene: OneBird | Flock = OneBird(), *, fps: float = FPS, uri: str = "test://"
    ) -> None:
        check_rate(fps)
        self.info = SourceInfo("test", uri, None, scene.width, scene.height, fps)
        self._fps, self._scene = fps, scene

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever."""
        due_ns = time.monotonic_ns()
        for index in itertools.count():
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            start = time.monotonic_ns()
            image = self._scene.frame(index)
            captured_ns = time.monotonic_ns()
            yield Frame(index, captured_ns, image, self.info.uri, (captured_ns - start) / 1e6)
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


def open_scene(uri: str, *, fps: float | None = None, seed: int | None = None) -> RenderedScene:
    """Open `test://`, or a flock with `test://?birds=3&fps=15&seed=1`.

    The options win over the address. Without `birds` it is one bird that fills 640 x 480. A flock
    is at most `birds` birds at a time in 1280 x 720; 0 is a scene where nothing comes.

    Raises:
        UsageError: the address has an unknown part, or a number out of range.
    """
    text, question, query = uri.removeprefix("test://").partition("?")
    values = dict(parse_qsl(query, keep_blank_values=True))
    try:
        if text or (question and not values) or set(values) - {"birds", "fps", "seed"}:
            raise ValueError
        birds = int(values["birds"]) if "birds" in values else None
        fps = float(values.get("fps", FPS)) if fps is None else fps
        seed = int(values.get("seed", 0)) if seed is None else seed
        if (birds is not None and not 0 <= birds <= MAX_BIRDS) or seed < 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"'{uri}' names no rendered scene", expected=FORM) from None
    check_rate(fps)
    scene = OneBird(seed) if birds is None else Flock(birds, seed=seed, fps=fps)
    return RenderedScene(scene, fps=fps, uri=uri)
