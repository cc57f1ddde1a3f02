"""An OpenCV capture as a connection: V4L2, FFmpeg and OpenCV's GStreamer are read the same way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost
from finedge.runtime.sources.base import (
    DEFAULT_CAPTURE,
    CapturedFrame,
    CaptureOptions,
    SourceInfo,
)
from finedge.runtime.sources.capture_time import arrival_time
from finedge.runtime.sources.geometry import scale_and_flip

CLOSE_WAIT_S = 0.1  # a Ctrl-C waits for it


@dataclass(frozen=True)
class GrabbedFrame:
    """An image as OpenCV delivers it.

    Attributes:
        image: uint8 [H, W, 3] BGR.
        position_ms: the time stamp of the capture.
        arrival_ns: when it came, on the monotonic clock.
        decode_ms: the time of its decoding.
    """

    image: NDArray[np.uint8]
    position_ms: float
    arrival_ns: int
    decode_ms: float


class OpenCvConnection:
    """A connection that reads an open `cv2.VideoCapture`.

    Args:
        reader: opened; this class releases it.
        info: of the source.
        transform: the size and flip that are applied here.
        capture_time: (time stamp of the capture in ms, now in ns on the monotonic clock) -> capture
            time in ns.
        first: a frame that was read already: the first of `read`.
        fix: what to do when no more frames come.
    """

    live = True

    def __init__(
        self,
        reader: cv2.VideoCapture,
        info: SourceInfo,
        *,
        transform: CaptureOptions = DEFAULT_CAPTURE,
        capture_time: Callable[[float, int], int] = arrival_time,
        first: GrabbedFrame | None = None,
        fix: str = "",
    ) -> None:
        self.info = info
        self._reader, self._capture_time, self._first = reader, capture_time, first
        self._transform, self._fix = transform, fix
        # Releasing a device while another thread reads it crashes the process.
        self._lock = threading.Lock()
        self._closed = False

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed."""
        with self._lock:
            try:
                return None if self._closed else self._read()
            finally:
                if self._closed:  # `close` was called meanwhile, and did not wait for this read
                    self._reader.release()

    def close(self) -> None:
        """Release the device. Where a read hangs in it, that read releases it at its end."""
        self._closed = True
        if self._lock.acquire(timeout=CLOSE_WAIT_S):
            self._reader.release()
            self._lock.release()

    def _read(self) -> CapturedFrame:
        frame, self._first = self._first or grab_frame(self._reader), None
        if frame is None:
            raise SourceLost(f"{self.info.uri} delivers no frames any more", fix=self._fix)
        start = time.monotonic_ns()
        captured_ns = self._capture_time(frame.position_ms, frame.arrival_ns)
        rgb = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        image = scale_and_flip(rgb, self._transform)
        decode_ms = frame.decode_ms + (time.monotonic_ns() - start) / 1e6
        return CapturedFrame(captured_ns, image, decode_ms)


def grab_frame(reader: cv2.VideoCapture) -> GrabbedFrame | None:
    """Wait for the next frame of an open capture; None where no more come."""
    if not reader.grab():
        return None
    arrival_ns = time.monotonic_ns()
    ok, image = reader.retrieve()
    if not ok or image is None:
        return None
    decode_ms = (time.monotonic_ns() - arrival_ns) / 1e6
    position_ms = reader.get(cv2.CAP_PROP_POS_MSEC)
    return GrabbedFrame(np.asarray(image, dtype=np.uint8), position_ms, arrival_ns, decode_ms)


def info_of(reader: cv2.VideoCapture, *, kind: str, uri: str) -> SourceInfo:
    """Return the properties of an open capture; None for those that its backend does not know."""
    frames = reader.get(cv2.CAP_PROP_FRAME_COUNT)
    width, height = reader.get(cv2.CAP_PROP_FRAME_WIDTH), reader.get(cv2.CAP_PROP_FRAME_HEIGHT)
    fps = reader.get(cv2.CAP_PROP_FPS)
    return SourceInfo(
        kind,
        uri,
        frames=int(frames) if frames > 0 else None,
        width=int(width) or None,
        height=int(height) or None,
        fps=fps if fps > 0 else None,
    )
