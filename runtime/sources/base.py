"""What a source is: something that yields frames, each with the moment it was captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finedge.errors import UsageError

LONGEST_SIDE = 8192  # pixels: a picture of 8192x8192 takes 201 MB
LONGEST_LATENCY_MS = 600_000
RATES = (1e-6, 1e6)  # frames a second: one in 12 days, to what no camera reaches
FLIPS = range(8)  # as nvvidconv's flip-method counts them
TURNED = (1, 3, 5, 7)  # flips that exchange width and height


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    `index` counts from 0 in the order of the source (a gap means that frames were dropped), `captured_ns` is `time.monotonic_ns()` of
    the capture (of the read, for files), `image` is uint8 [H, W, 3] RGB, `name` the file or device, `decode_ms` what reading and decoding took
    (of a network stream or a GStreamer pipeline, which decode behind our back, only what bringing the picture to RGB took).
    """

    index: int
    captured_ns: int
    image: NDArray[np.uint8]
    name: str
    decode_ms: float


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its first frame; `frames` is what a file announces, which may be wrong."""

    kind: str
    uri: str
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class CaptureOptions:
    """What is asked of a live source; None leaves it as it comes.

    Args:
        width: in pixels, with `height`, both before `flip`: asked of a camera; pictures of a network stream are scaled to it.
        height: see `width`.
        fps: frames a second: asked of a camera; a network stream is thinned to it.
        flip: 0 none, 1 a quarter turn counterclockwise, 2 half a turn, 3 a quarter turn clockwise, 4 left-right, 5 about the diagonal
            from lower left to upper right, 6 upside down, 7 about the other diagonal.
        latency_ms: how long GStreamer's RTSP waits for packets that come out of order; FFmpeg's RTSP over TCP has no such wait.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    flip: int = 0
    latency_ms: int | None = None

    def __post_init__(self) -> None:
        sides = [side for side in (self.width, self.height) if side is not None]
        if len(sides) == 1 or any(not 1 <= side <= LONGEST_SIDE for side in sides):
            expected = f"both, in pixels, 1 to {LONGEST_SIDE}"
            raise UsageError(f"width {self.width} with height {self.height}", expected=expected)
        if self.fps is not None:
            check_rate(self.fps)
        if self.flip not in FLIPS:
            raise UsageError(
                f"flip {self.flip}",
                expected="0 none, 1 left turn, 2 half turn, 3 right turn, 4 left-right, 6 upside down, 5 or 7 diagonals",
            )
        if self.latency_ms is not None and not 0 <= self.latency_ms <= LONGEST_LATENCY_MS:
            expected = f"0 to {LONGEST_LATENCY_MS} ms"
            raise UsageError(f"latency {self.latency_ms} ms", expected=expected)

    def asked(self) -> dict[str, Any]:
        """Return what is asked for by name, without what says nothing."""
        return {
            name: value
            for name, value in vars(self).items()
            if value != getattr(CaptureOptions, name)
        }


def check_rate(fps: float) -> None:
    """Refuse what is no rate of frames.

    Raises:
        UsageError: not a number in `RATES`.
    """
    if not RATES[0] <= fps <= RATES[1]:
        raise UsageError(f"fps {fps}", expected=f"{RATES[0]:g} to {RATES[1]:g} frames a second")


AS_IT_COMES = CaptureOptions()
CAMERA_WISHES = frozenset({"width", "height", "fps", "flip"})


@dataclass(frozen=True)
class Shot:
    """One picture of a connection: `Frame` without its number and name."""

    captured_ns: int
    image: NDArray[np.uint8]
    decode_ms: float


class EndOfStream(Exception):
    """A connection was ended in order by its other side; for a live source that is a loss."""


class Connection(Protocol):
    """One connection to a device or server, until it breaks.

    `read` waits a bounded time for the next picture; it returns None once closed and raises `SourceLost` or `EndOfStream`.
    `close` may be called from any thread, and twice; it does not wait for long.
    """

    live: bool
    info: SourceInfo

    def read(self) -> Shot | None:
        """Return the next picture."""

    def close(self) -> None:
        """Release the device or the server."""


class Source(Protocol):
    """An open source: iterate it once, and leave its `with` block to release the device.

    A `live` source produces frames whether or not they are wanted, so only its newest frame counts; it ends by raising `SourceLost`.
    Of any other source every frame counts.
    """

    live: bool
    info: SourceInfo

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Interruptible(Protocol):
    """A source whose reader may be waiting, for a picture or for its camera's return: `close`, from any thread, ends that."""

    def close(self) -> None:
        """Release the device or the server."""
