"""An OpenCV capture as a connection: V4L2 and OpenCV's GStreamer are read the same way."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from finedge.errors import SourceLost
from finedge.runtime.sources.base import (
    DEFAULT_CAPTURE,
    CapturedFrame,
    CaptureOptions,
    SourceInfo,
)
from finedge.runtime.sources.capture_time import arrival_time
from finedge.runtime.sources.geometry import scale_and_flip
from finedge.runtime.sources.guard import Guard


class OpenCvConnection:
    """A connection that reads an open `cv2.VideoCapture`.

    Args:
        reader: opened; this class releases it.
        info: of the source.
        transform: the size and flip that are applied here.
        capture_time: (time stamp of the capture in ms, now in ns on the monotonic clock) -> capture
            time in ns.
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
        fix: str = "",
    ) -> None:
        self.info = info
        self._reader, self._capture_time = reader, capture_time
        self._transform, self._fix = transform, fix
        self._guard = Guard(reader.release)

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed."""
        with self._guard.reading() as is_open:
            return self._read() if is_open else None

    def close(self) -> None:
        """Release the device. Where a read hangs in it, that read releases it at its end."""
        self._guard.close()

    def _read(self) -> CapturedFrame:
        grabbed = self._reader.grab()
        arrival_ns = time.monotonic_ns()
        ok, image = self._reader.retrieve() if grabbed else (False, None)
        if not ok or image is None:
            raise SourceLost(f"{self.info.uri} delivers no frames any more", fix=self._fix)
        captured_ns = self._capture_time(self._reader.get(cv2.CAP_PROP_POS_MSEC), arrival_ns)
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        image = scale_and_flip(rgb, self._transform)
        return CapturedFrame(captured_ns, image, (time.monotonic_ns() - arrival_ns) / 1e6)


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
