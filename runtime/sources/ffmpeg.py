"""Network streams that OpenCV's FFmpeg reads: its options and time-outs, and the first frame."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import cv2

from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import CHECK_CAMERA, CaptureOptions
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.opencv import GrabbedFrame, OpenCvConnection, grab_frame, info_of

OPEN_TIMEOUT_S = 5.0
# A silent connection counts as dead. Time-lapse cameras send an image every few seconds.
READ_TIMEOUT_S = 10.0
CATCH_UP_S = 1.0
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# Without fpsprobesize FFmpeg holds back the first 20 frames to guess a rate. Nothing uses it.
HTTP_OPTIONS = "fpsprobesize;0"
# TCP only: over UDP a lost packet shows as an image that never was.
RTSP_OPTIONS = f"rtsp_transport;tcp|allowed_media_types;video|{HTTP_OPTIONS}"
_environment = threading.Lock()


def open_capture(
    uri: str,
    options: str,
    *,
    timeout_s: float,
    properties: Sequence[int] = (),
) -> cv2.VideoCapture:
    """Open an address with FFmpeg. The result may not be opened.

    Args:
        uri: of the stream.
        options: for FFmpeg; ignored where the user set the variable `OPTIONS`.
        timeout_s: the longest wait for a read. Opening has `OPEN_TIMEOUT_S`.
        properties: more of `cv2.VideoCapture`: key, value, key, value.
    """
    times = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(OPEN_TIMEOUT_S * 1e3),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(timeout_s * 1e3),
    ]
    # One thread: each of several threads would decode a frame of its own, so as many frames as
    # threads would be held back. Older OpenCVs have no such property.
    threads = [cv2.CAP_PROP_N_THREADS, 1] if hasattr(cv2, "CAP_PROP_N_THREADS") else []
    with _ffmpeg_options(options):
        return cv2.VideoCapture(uri, cv2.CAP_FFMPEG, [*times, *threads, *properties])


def live_connection(
    reader: cv2.VideoCapture,
    *,
    kind: str,
    uri: str,
    transform: CaptureOptions,
    capture_time: Callable[[float, int], int],
) -> OpenCvConnection:
    """Return the connection of an open live stream, at its newest frame.

    Args: as of `OpenCvConnection`; `kind` and `uri` as of `SourceInfo`.
    """
    first = _newest_frame(reader)
    return OpenCvConnection(
        reader,
        info_of(reader, kind=kind, uri=mask(uri)),
        transform=transform,
        capture_time=capture_time,
        first=first,
        fix=CHECK_CAMERA,
    )


def _newest_frame(reader: cv2.VideoCapture) -> GrabbedFrame | None:
    """Read the old frames that FFmpeg kept while opening, and return the last.

    A frame is new when reading it took at least half the time between its stamp and the stamp of
    the frame before. A source that is slower than the time-out has given the only frame of this
    connection by then: that one is returned.
    """
    last_s, last_position_ms, deadline = 0.0, float("inf"), Deadline(CATCH_UP_S)
    last: GrabbedFrame | None = None
    while (frame := grab_frame(reader)) is not None:
        now_s = frame.arrival_ns / 1e9
        interval_ms = frame.position_ms - last_position_ms
        if deadline.passed or 2e3 * (now_s - last_s) >= interval_ms > 0:
            return frame
        last_s, last_position_ms, last = now_s, frame.position_ms, frame
    return last


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """Set the options that OpenCV passes to FFmpeg, for a moment.

    OpenCV takes them from the environment only. A setting of the user stays.
    """
    with _environment:
        if OPTIONS in os.environ:
            yield
            return
        os.environ[OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[OPTIONS]
