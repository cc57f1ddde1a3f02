"""Streams over the network: `rtsp://`, `rtsps://`, `http(s)://`, read by OpenCV's FFmpeg, or by GStreamer where a Jetson decodes in hardware."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2

from finedge.errors import FinedgeError, SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import gstreamer, pipelines
from finedge.runtime.sources.address import mask, split
from finedge.runtime.sources.aside import aside
from finedge.runtime.sources.base import (
    AS_IT_COMES,
    CaptureOptions,
    Connection,
    EndOfStream,
    Source,
)
from finedge.runtime.sources.capture import Capture, Held, arrival, info_of, take
from finedge.runtime.sources.client import ask
from finedge.runtime.sources.container import stores_count
from finedge.runtime.sources.diagnosis import reach, why_not_http, why_not_rtsp
from finedge.runtime.sources.pictures import Pictures, feed_of
from finedge.runtime.sources.reconnect import Reconnecting
from finedge.runtime.sources.video import RAW, VideoFile, is_motion_jpeg

OPEN_TIMEOUT_S = 5.0
# A silent connection is taken to be dead; time-lapse cameras send a picture each few seconds.
READ_TIMEOUT_S = 10.0
VIAS = ("auto", "ffmpeg", "gstreamer")
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# Without fpsprobesize FFmpeg holds back the first 20 frames to guess a rate that we do not use.
# TCP only: over UDP a lost packet shows as a picture that never was.
RTSP_OPTIONS = "rtsp_transport;tcp|allowed_media_types;video|fpsprobesize;0"
HTTP_OPTIONS = "fpsprobesize;0"
CATCH_UP_S = 1.0
FORGIVEN = 0.05  # of the time that passes: clocks of cheap cameras are that wrong
MAX_DELAY_MS = 10_000.0  # more is a clock that was set
FIX = "check the camera's power and network"
_environment = threading.Lock()


class RtpClock:
    """Tells when a picture that waited in the network's buffers was captured, by the sender's time stamps.

    The fastest picture so far is taken to have come at once; a later one that took longer is that much older. A delay that stays is
    forgotten at `FORGIVEN` of the time that passes, because the sender's clock may simply be slow.
    """

    def __init__(self) -> None:
        self._least_ms, self._seen_ms = float("inf"), 0.0

    def __call__(self, position_ms: float, now_ns: int) -> int:
        """Return when the picture stamped `position_ms` was captured, in ns on the monotonic clock; never after `now_ns`."""
        now_ms = now_ns / 1e6
        offset = now_ms - position_ms
        least = self._least_ms + FORGIVEN * (now_ms - self._seen_ms)
        self._least_ms = offset if offset - least > MAX_DELAY_MS else min(least, offset)
        self._seen_ms = now_ms
        return now_ns - round((offset - self._least_ms) * 1e6)


def open_rtsp(
    uri: str,
    *,
    wish: CaptureOptions = AS_IT_COMES,
    reconnect: bool = True,
    timeout_s: float = READ_TIMEOUT_S,
    via: str = "auto",
) -> Source:
    """Open `rtsp://` or `rtsps://` as a live source over TCP where the server has it.

    Args:
        uri: with `user:password@` where the camera wants it.
        wish: size, rate, flip, latency.
        reconnect: False to raise `SourceLost` at the first loss.
        timeout_s: a silence after which the connection is lost; more for a camera that sends a picture now and then.
        via: `ffmpeg`, `gstreamer`, or `auto`: GStreamer where python3-gi and nvv4l2decoder are, or OpenCV has no FFmpeg.

    Raises:
        SystemProblem: it cannot be opened; the text says what the server answered.
    """
    split(uri)
    connect = _connect_rtsp_gstreamer if _by_gstreamer(via) else _connect_rtsp
    return Reconnecting(
        lambda: connect(uri, wish, timeout_s=timeout_s), reconnect=reconnect, fps=wish.fps
    )


def open_http(
    uri: str,
    *,
    wish: CaptureOptions = AS_IT_COMES,
    reconnect: bool = True,
    timeout_s: float = READ_TIMEOUT_S,
) -> Source:
    """Open `http(s)://`: what has an end (a video file, a finished HLS list) gives every frame; MJPEG and live HLS are live.

    A still image is asked for again and again, each `POLL_S` or at the rate of `wish`, and is live
    too.

    Args: as of `open_rtsp`; a finished video grants no wish.

    Raises:
        SystemProblem: it cannot be opened; the text says what the server answered.
    """
    split(uri)
    first = [aside(lambda: _connect_http(uri, wish, timeout_s=timeout_s), late=_let_go)]
    if isinstance(first[0], VideoFile):
        if wish != AS_IT_COMES:
            _let_go(first[0])
            raise UsageError(
                f"{mask(uri)} is a finished video",
                expected="no width, height, fps or flip: they are asked of what is live",
            )
        return first[0]

    def connect() -> Connection:
        connection = first.pop() if first else _connect_http(uri, wish, timeout_s=timeout_s)
        if isinstance(connection, VideoFile):
            _let_go(connection)
            raise SourceLost(f"{mask(uri)} is a finished video now", fix=FIX)
        return connection

    return Reconnecting(connect, reconnect=reconnect, fps=wish.fps)


def _by_gstreamer(via: str) -> bool:
    if via not in VIAS:
        raise UsageError(f"via '{via}'", expected=", ".join(VIAS))
    # Not by OpenCV's GStreamer: it cannot keep what comes before the first key frame from the decoder.
    here = gstreamer.load() is not None
    if via == "gstreamer" and not here:
        raise SystemProblem(
            "RTSP by GStreamer needs python3-gi",
            fix=f"{gstreamer.PACKAGES}; make the venv with --system-site-packages",
        )
    if via != "auto":
        return via == "gstreamer"
    return here and (
        gstreamer.has("nvv4l2decoder") or not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    )


def _connect_rtsp(uri: str, wish: CaptureOptions, *, timeout_s: float) -> Connection:
    reach(uri, timeout_s=1.0)
    capture = _ffmpeg(uri, RTSP_OPTIONS, timeout_s=timeout_s)
    if not capture.isOpened():
        raise why_not_rtsp(uri, timeout_s=timeout_s)
    return _live(capture, "rtsp", uri, wish=wish)


def _connect_rtsp_gstreamer(uri: str, wish: CaptureOptions, *, timeout_s: float) -> Connection:
    reach(uri, timeout_s=1.0)
    pipeline = pipelines.rtsp(uri, wish, jetson=gstreamer.has("nvv4l2decoder"))
    try:
        return gstreamer.connect(pipeline, kind="rtsp", uri=mask(uri), timeout_s=timeout_s)
    except (SourceLost, EndOfStream) as error:
        raise why_not_rtsp(uri, timeout_s=timeout_s) from error


def _connect_http(uri: str, wish: CaptureOptions, *, timeout_s: float) -> Connection | VideoFile:
    """Return the reader of an address: our own for MJPEG and stills, FFmpeg for the rest.

    Raises:
        SystemProblem: it cannot be opened, or shows no picture.
    """
    try:
        answer = ask(uri, timeout_s=timeout_s, open_timeout_s=OPEN_TIMEOUT_S)
        feed = feed_of(answer, uri, wish=wish, timeout_s=timeout_s)
        head = answer.more() if feed is None else b""
    except (FinedgeError, OSError, ValueError) as error:
        raise why_not_http(uri, timeout_s=timeout_s) from error
    if feed is None:
        answer.close()
        return _connect_http_ffmpeg(uri, wish, head=head, timeout_s=timeout_s)
    try:
        return Pictures(feed, uri, wish=wish, timeout_s=timeout_s, open_timeout_s=OPEN_TIMEOUT_S)
    except EndOfStream:
        raise SystemProblem(
            f"{mask(uri)} ends without a picture",
            expected="MJPEG, or a still image",
            fix=FIX,
        ) from None
    except SourceLost as error:  # never seen is not lost
        raise SystemProblem(
            error.what,
            expected="whole JPEG or PNG pictures",
            fix=error.fix,
        ) from error


def _connect_http_ffmpeg(
    uri: str,
    wish: CaptureOptions,
    *,
    head: bytes,
    timeout_s: float,
) -> Connection | VideoFile:
    """Return a finished video, or what is live; `head` is what the address begins with."""
    capture = _ffmpeg(uri, HTTP_OPTIONS, timeout_s=timeout_s)
    if not capture.isOpened():
        raise why_not_http(uri, timeout_s=timeout_s)
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0:
        return _live(capture, "http", uri, wish=wish)
    raw = is_motion_jpeg(capture)
    if raw:
        capture.release()
        capture = _ffmpeg(uri, HTTP_OPTIONS, timeout_s=timeout_s, more=RAW)
    return VideoFile(
        capture,
        mask(uri),
        kind="http",
        broken=SourceLost,
        counted=stores_count(head),
        raw=raw,
    )


def _let_go(late: Connection | VideoFile) -> None:
    if isinstance(late, VideoFile):
        late.__exit__(None, None, None)
    else:
        late.close()


def _live(capture: cv2.VideoCapture, kind: str, uri: str, *, wish: CaptureOptions) -> Capture:
    held = _caught_up(capture)
    clock = RtpClock() if kind == "rtsp" else arrival  # FFmpeg invents the time stamps of MJPEG
    return Capture(
        capture,
        info_of(capture, kind, mask(uri)),
        wish=wish,
        scale=True,
        captured_ns=clock,
        held=held,
        fix=FIX,
    )


def _caught_up(capture: cv2.VideoCapture) -> Held | None:
    """Take the old pictures that FFmpeg kept while opening; return the last.

    A source that is slower than the time-out has given the only picture of this connection by then:
    it is not thrown away.
    """
    before, position, deadline = 0.0, float("inf"), time.monotonic() + CATCH_UP_S
    last: Held | None = None
    while (held := take(capture)) is not None:
        now = held.at_ns / 1e9
        if now > deadline or 2e3 * (now - before) >= held.position_ms - position > 0:
            return held
        before, position, last = now, held.position_ms, held
    return last


def _ffmpeg(
    uri: str,
    options: str,
    *,
    timeout_s: float,
    more: Sequence[int] = (),
) -> cv2.VideoCapture:
    times = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(OPEN_TIMEOUT_S * 1e3),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(timeout_s * 1e3),
    ]
    # One thread: several would decode a frame each, and hold back as many frames as there are threads. Older OpenCVs cannot be told.
    threads = [cv2.CAP_PROP_N_THREADS, 1] if hasattr(cv2, "CAP_PROP_N_THREADS") else []
    with _ffmpeg_options(options):
        return cv2.VideoCapture(uri, cv2.CAP_FFMPEG, [*times, *threads, *more])


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """Set what OpenCV hands to FFmpeg for a moment; it takes these from the environment only. A user's own setting stays."""
    with _environment:
        if OPTIONS in os.environ:
            yield
            return
        os.environ[OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[OPTIONS]
