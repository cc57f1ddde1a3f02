"""The types of sources: frames, options, the connection to a camera, the protocol of a source."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost, SystemProblem, UsageError

MAX_SIDE = 8192  # pixels: an image of 8192x8192 takes 201 MB
MAX_LATENCY_MS = 600_000
FPS_RANGE = (1e-6, 1e6)  # frames a second: from one in 12 days to what no camera reaches
FLIPS = range(8)  # the numbers of nvvidconv's flip-method
TRANSPOSING_FLIPS = (1, 3, 5, 7)  # they exchange width and height
CHECK_CAMERA = "check the camera's power and network"


@dataclass(frozen=True)
class Frame:
    """One decoded image of a source.

    Attributes:
        index: counts from 0 in the order of the source. A gap means that frames were dropped.
        captured_ns: `time.monotonic_ns()` of the capture; for files, of the read.
        image: uint8 [H, W, 3] RGB.
        name: the file or device.
        decode_ms: the time of reading and decoding; of a network stream, without the wait for it.
            GStreamer pipelines decode in threads of their own. For them it is only the time of the
            conversion to RGB.
        seconds: the place of a frame in a file, in s from the start of its stream: the presentation
            time in the container. None of live frames and of photos.
    """

    index: int
    captured_ns: int
    image: NDArray[np.uint8]
    name: str
    decode_ms: float
    seconds: float | None = None


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its first frame.

    `frames` is the count in the header of a file, which may be wrong. `width` and `height` are in
    pixels. None means unknown.
    """

    kind: str
    uri: str
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class CaptureOptions:
    """Options of a live source; None keeps what the source delivers.

    Args:
        width: in pixels, with `height`, both before `flip`. A camera is set to it; frames of a
            network stream are scaled to it.
        height: see `width`.
        fps: frames a second. A camera is set to it; of a network stream, frames are left out.
        flip: 0 none, 1 a quarter turn counterclockwise, 2 half a turn, 3 a quarter turn clockwise,
            4 left-right, 5 about the diagonal from lower left to upper right, 6 upside down,
            7 about the other diagonal.
        latency_ms: how long GStreamer's RTSP waits for packets that come out of order. FFmpeg's
            RTSP over TCP has no such wait.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    flip: int = 0
    latency_ms: int | None = None

    def __post_init__(self) -> None:
        sides = [side for side in (self.width, self.height) if side is not None]
        if len(sides) == 1 or any(not 1 <= side <= MAX_SIDE for side in sides):
            expected = f"both, in pixels, 1 to {MAX_SIDE}"
            raise UsageError(f"width {self.width} with height {self.height}", expected=expected)
        if self.fps is not None:
            check_rate(self.fps)
        if self.flip not in FLIPS:
            raise UsageError(
                f"flip {self.flip}",
                expected="0 none, 1 left turn, 2 half turn, 3 right turn, 4 left-right, "
                "6 upside down, 5 or 7 diagonals",
            )
        if self.latency_ms is not None and not 0 <= self.latency_ms <= MAX_LATENCY_MS:
            expected = f"0 to {MAX_LATENCY_MS} ms"
            raise UsageError(f"latency {self.latency_ms} ms", expected=expected)

    def changes(self) -> dict[str, Any]:
        """Return the options that differ from their default, by name."""
        return {
            name: value
            for name, value in vars(self).items()
            if value != getattr(CaptureOptions, name)
        }


DEFAULT_CAPTURE = CaptureOptions()
CAMERA_OPTIONS = frozenset({"width", "height", "fps", "flip"})


def check_rate(fps: float) -> None:
    """Check a frame rate.

    Raises:
        UsageError: it is not a number in `FPS_RANGE`.
    """
    low, high = FPS_RANGE
    if not low <= fps <= high:
        raise UsageError(f"fps {fps}", expected=f"{low:g} to {high:g} frames a second")


def check_reader(via: str, readers: Collection[str]) -> None:
    """Check the option `via`.

    Raises:
        UsageError: it is none of `readers`.
    """
    if via not in readers:
        raise UsageError(f"via '{via}'", expected=", ".join(readers))


@dataclass(frozen=True)
class CapturedFrame:
    """One image of a connection: a `Frame` without its index and name."""

    captured_ns: int
    image: NDArray[np.uint8]
    decode_ms: float
    seconds: float | None = None


class EndOfStream(Exception):
    """The other side ended a connection in order. For a live source this is a loss."""


class Connection(Protocol):
    """One connection to a device or server, until it breaks.

    `close` may be called from any thread, and twice. It does not wait for long.
    """

    live: bool
    info: SourceInfo

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed. It waits for a bounded time.

        Raises:
            SourceLost: no frame came, or the connection broke.
            EndOfStream: the other side ended it.
        """

    def close(self) -> None:
        """Release the device or the server."""


@contextmanager
def first_frame_required(
    name: str, *, expected: str = "", fix: str = "", end_fix: str = ""
) -> Iterator[None]:
    """Turn the loss of a connection that never gave a frame into a problem of this machine.

    Args:
        name: the source, in an error text.
        expected: in place of what the loss expected.
        fix: in place of what the loss advises.
        end_fix: the same, where the connection ended in order.

    Raises:
        SystemProblem: in place of `SourceLost` and `EndOfStream`.
    """
    try:
        yield
    except EndOfStream:
        what = f"{name} ends without a picture"
        raise SystemProblem(what, expected=expected, fix=end_fix or fix) from None
    except SourceLost as error:
        expected, fix = expected or error.expected, fix or error.fix
        raise SystemProblem(error.what, expected=expected, fix=fix) from error


def silence(name: str, timeout_s: float, *, fix: str) -> SourceLost:
    """Return the error of a source that gave no frame for `timeout_s` seconds."""
    return SourceLost(f"{name} delivers no frames: none came in {timeout_s:g} s", fix=fix)


class Source(Protocol):
    """An open source. Iterate it once; leaving its `with` block releases the device.

    A `live` source produces frames whether or not they are read, so only its newest frame counts.
    It ends by raising `SourceLost`. Of any other source every frame counts.
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
    """A source that another thread may close while its reader waits.

    `close` ends the wait for a frame, and the wait for a camera to come back.
    """

    def close(self) -> None:
        """Release the device or the server."""
