"""`http://` and `https://`: web cameras are read here; HLS and video files by FFmpeg."""

from __future__ import annotations

from finedge.errors import FinedgeError, SourceLost, UsageError
from finedge.runtime.sources import ffmpeg
from finedge.runtime.sources.address import mask, split
from finedge.runtime.sources.base import (
    CHECK_CAMERA,
    DEFAULT_CAPTURE,
    CaptureOptions,
    Connection,
    Source,
    first_frame_required,
)
from finedge.runtime.sources.capture_time import arrival_time
from finedge.runtime.sources.client import get_body
from finedge.runtime.sources.diagnosis import why_not_http
from finedge.runtime.sources.ffmpeg_stream import FfmpegStream
from finedge.runtime.sources.reconnect import ReconnectingSource
from finedge.runtime.sources.video import VideoFile
from finedge.runtime.sources.web_camera import WebCamera, feed_of
from finedge.runtime.sources.worker import run_in_worker


def open_http(
    uri: str,
    *,
    capture: CaptureOptions = DEFAULT_CAPTURE,
    reconnect: bool = True,
    timeout_s: float = ffmpeg.READ_TIMEOUT_S,
) -> Source:
    """Open `http(s)://`. MJPEG, still images and live HLS are live.

    A video file and a finished HLS list are not live: they give every frame. A still image is
    requested again at the rate of `capture`, else each `web_camera.POLL_S` seconds.

    Args:
        uri: with `user:password@` where the camera requires it.
        capture: size, rate, flip; a finished video takes none of them.
        reconnect: False to raise `SourceLost` at the first loss.
        timeout_s: the silence after which the connection counts as lost.

    Raises:
        SystemProblem: it cannot be opened. The text holds the answer of the server.
    """
    split(uri)
    first = run_in_worker(lambda: _connect(uri, capture, timeout_s=timeout_s), close=_close)
    if isinstance(first, VideoFile):
        if capture != DEFAULT_CAPTURE:
            _close(first)
            raise UsageError(
                f"{mask(uri)} is a finished video",
                expected="no width, height, fps or flip: these are options of live sources",
            )
        return first
    connections: list[Connection] = [first]

    def connect() -> Connection:
        if connections:
            return connections.pop()
        connection = _connect(uri, capture, timeout_s=timeout_s)
        if isinstance(connection, VideoFile):
            _close(connection)
            raise SourceLost(f"{mask(uri)} is a finished video now", fix=CHECK_CAMERA)
        return connection

    return ReconnectingSource(connect, reconnect=reconnect, fps=capture.fps)


def _connect(uri: str, options: CaptureOptions, *, timeout_s: float) -> Connection | VideoFile:
    """Return the reader of an address: a web camera's, else FFmpeg's.

    Raises:
        SystemProblem: it cannot be opened, or gives no image.
    """
    open_timeout_s = ffmpeg.OPEN_TIMEOUT_S
    try:
        response = get_body(uri, timeout_s=timeout_s, open_timeout_s=open_timeout_s)
        feed = feed_of(response, uri, fps=options.fps, timeout_s=timeout_s)
    except (FinedgeError, OSError, ValueError) as error:
        raise why_not_http(uri, timeout_s=timeout_s) from error
    if feed is None:
        response.close()
        return _connect_ffmpeg(uri, options, timeout_s=timeout_s)
    with first_frame_required(mask(uri), expected="whole JPEG or PNG pictures", fix=CHECK_CAMERA):
        return WebCamera(
            feed, uri, transform=options, timeout_s=timeout_s, open_timeout_s=open_timeout_s
        )


def _connect_ffmpeg(
    uri: str, options: CaptureOptions, *, timeout_s: float
) -> Connection | VideoFile:
    """Return a finished video, which says how long it is, or a live stream."""
    try:
        decoder = ffmpeg.open_stream(uri, ffmpeg.HTTP_OPTIONS, timeout_s=timeout_s)
    except (ffmpeg.NoVideo, ffmpeg.NoDecoder) as error:
        raise why_not_http(uri, timeout_s=timeout_s) from error
    if decoder.announced or decoder.duration_s:
        return VideoFile(decoder, mask(uri), kind="http", error=SourceLost)
    # FFmpeg invents the time stamps of MJPEG.
    return FfmpegStream(
        decoder,
        kind="http",
        uri=uri,
        transform=options,
        capture_time=arrival_time,
        timeout_s=timeout_s,
    )


def _close(connection: Connection | VideoFile) -> None:
    if isinstance(connection, VideoFile):
        connection.__exit__(None, None, None)
    else:
        connection.close()
