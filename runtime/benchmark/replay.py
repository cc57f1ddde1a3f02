"""A replay: decoded frames in rotation that come by themselves, as a camera's do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError
from finedge.runtime.sources import Frame, SourceInfo

FPS = 30.0


@dataclass
class Replay:
    """A live source of decoded frames (uint8 [H, W, 3] RGB) in rotation, at `fps` a second.

    `captured_ns` is the moment when the frame was due, as a camera's would be. It is not the moment
    when a busy machine asked for it. If several frames fell due meanwhile, the newest is given. The
    others are counted in `missed` and leave a gap in the indices.
    """

    frames: Sequence[NDArray[np.uint8]]
    fps: float = FPS
    missed: int = field(default=0, init=False)
    live: bool = field(default=True, init=False)
    info: SourceInfo = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise UsageError(f"--fps {self.fps:g}", expected="a positive number of frames a second")
        height, width = self.frames[0].shape[:2]
        self.info = SourceInfo("replay", "replay", None, width, height, self.fps)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames without end."""
        start, period_ns, index = time.monotonic_ns(), 1e9 / self.fps, 0
        while True:
            late_ns = time.monotonic_ns() - start - index * period_ns
            if late_ns < 0:
                time.sleep(-late_ns / 1e9)
            skipped = int(max(0.0, late_ns) // period_ns)
            self.missed += skipped
            index += skipped
            due_ns, image = start + round(index * period_ns), self.frames[index % len(self.frames)]
            yield Frame(index, due_ns, image, "replay", 0.0)
            index += 1

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass
