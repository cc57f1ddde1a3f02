"""An OpenCV capture as a connection: V4L2, FFmpeg and OpenCV's own GStreamer are read the same way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost
from finedge.runtime.sources.base import CaptureOptions, Shot, SourceInfo

CLOSE_WAIT_S = 0.1  # a Ctrl-C waits for it
# numpy's names for the flips of `CaptureOptions`: (transposed first, upside down, left-right)
MOVES = {
    1: (1, 1, 0),
    2: (0, 1, 1),
    3: (1, 0, 1),
    4: (0, 0, 1),
    5: (1, 1, 1),
    6: (0, 1, 0),
    7: (1, 0, 0),
}


def arrival(position_ms: float, now_ns: int) -> int:
    """Return when a picture was captured where nothing better is known: when it was here. `position_ms` is not looked at."""
    return now_ns


@dataclass(frozen=True)
class Held:
    """A picture, uint8 [H, W, 3] BGR, with its position in ms, arrival, and time of hand-over."""

    image: NDArray[np.uint8]
    position_ms: float
    at_ns: int
    took_ms: float


class Capture:
    """Reads an open `cv2.VideoCapture`.

    Args:
        capture: opened; it is released here.
        info: what to say of it.
        wish: `flip` is done here, and the scaling to `width` and `height` where `scale` says so.
        captured_ns: (the capture's position in ms, now on the monotonic clock) -> when the picture was captured, both in ns.
        held: a picture that was taken already: the first to be read.
        fix: what to do when no more pictures come.
    """

    live = True

    def __init__(
        self,
        capture: cv2.VideoCapture,
        info: SourceInfo,
        *,
        wish: CaptureOptions,
        scale: bool = False,
        captured_ns: Callable[[float, int], int] = arrival,
        held: Held | None = None,
        fix: str = "",
    ) -> None:
        self.info = info
        self._capture, self._captured_ns, self._held, self._fix = capture, captured_ns, held, fix
        self._wish, self._scale = wish, scale
        self._lock = (
            threading.Lock()
        )  # releasing a device while another thread reads it crashes the process
        self._closed = False

    def read(self) -> Shot | None:
        """Return the next picture; None once closed."""
        with self._lock:
            try:
                return None if self._closed else self._read()
            finally:
                if self._closed:  # meanwhile: `close` did not wait for this read
                    self._capture.release()

    def close(self) -> None:
        """Release the device; where a read hangs in it, that read releases it when it ends."""
        self._closed = True
        if self._lock.acquire(timeout=CLOSE_WAIT_S):
            self._capture.release()
            self._lock.release()

    def _read(self) -> Shot:
        held, self._held = self._held or take(self._capture), None
        if held is None:
            raise SourceLost(f"{self.info.uri} delivers no frames any more", fix=self._fix)
        start = time.monotonic_ns()
        captured = self._captured_ns(held.position_ms, held.at_ns)
        rgb = np.asarray(cv2.cvtColor(held.image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        image = shaped(rgb, self._wish, scale=self._scale)
        return Shot(captured, image, held.took_ms + (time.monotonic_ns() - start) / 1e6)


def take(capture: cv2.VideoCapture) -> Held | None:
    """Wait for the next picture of an open capture; None where there is none any more."""
    if not capture.grab():
        return None
    at = time.monotonic_ns()
    ok, image = capture.retrieve()
    if not ok or image is None:
        return None
    took_ms = (time.monotonic_ns() - at) / 1e6
    return Held(np.asarray(image, dtype=np.uint8), capture.get(cv2.CAP_PROP_POS_MSEC), at, took_ms)


def shaped(image: NDArray[np.uint8], wish: CaptureOptions, *, scale: bool) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] turned by `wish`, and with `scale` scaled to its size."""
    if scale and wish.width and wish.height:
        sized = cv2.resize(image, (wish.width, wish.height), interpolation=cv2.INTER_AREA)
        image = np.asarray(sized, dtype=np.uint8)
    return flipped(image, wish.flip)


def flipped(image: NDArray[np.uint8], flip: int) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] turned or mirrored as `CaptureOptions.flip` says; contiguous."""
    if flip == 0:
        return image
    transposed, down, right = MOVES[flip]
    moved = image.transpose(1, 0, 2) if transposed else image
    return np.ascontiguousarray(moved[:: -1 if down else 1, :: -1 if right else 1])


def info_of(capture: cv2.VideoCapture, kind: str, uri: str) -> SourceInfo:
    """Return what an open capture says of itself; a property that a back end does not know is None."""
    width, height = (
        int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return SourceInfo(
        kind,
        uri,
        int(frames) if frames > 0 else None,
        width or None,
        height or None,
        fps if fps > 0 else None,
    )
