"""`rtsp://` and `rtsps://`: FFmpeg reads them, or GStreamer where a Jetson decodes."""

from __future__ import annotations

from finedge.errors import SourceLost, SystemProblem
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.sources import ffmpeg, gst_text, gstreamer
from finedge.runtime.sources.address import mask, split
from finedge.runtime.sources.base import (
    DEFAULT_CAPTURE,
    CaptureOptions,
    Connection,
    EndOfStream,
    Source,
    check_reader,
)
from finedge.runtime.sources.capture_time import RtpClock
from finedge.runtime.sources.diagnosis import reach, why_not_rtsp
from finedge.runtime.sources.ffmpeg_stream import FfmpegStream
from finedge.runtime.sources.reconnect import ReconnectingSource

READERS = ("auto", "ffmpeg", "gstreamer")
REACH_TIMEOUT_S = 1.0


def open_rtsp(
    uri: str,
    *,
    capture: CaptureOptions = DEFAULT_CAPTURE,
    reconnect: bool = True,
    timeout_s: float = ffmpeg.READ_TIMEOUT_S,
    via: str = "auto",
) -> Source:
    """Open `rtsp://` or `rtsps://` as a live source over TCP.

    Args:
        uri: with `user:password@` where the camera requires it.
        capture: size, rate, flip, latency.
        reconnect: False to raise `SourceLost` at the first loss.
        timeout_s: the silence after which the connection counts as lost. A camera that sends an
            image now and then needs more.
        via: `ffmpeg`, `gstreamer`, or `auto`. The last is GStreamer where python3-gi is installed,
            and either nvv4l2decoder is too or PyAV is not.

    Raises:
        SystemProblem: it cannot be opened. The text holds the answer of the server.
    """
    split(uri)
    connect = {"ffmpeg": _connect_ffmpeg, "gstreamer": _connect_gstreamer}[reader_of(via)]
    return ReconnectingSource(
        lambda: connect(uri, capture, timeout_s=timeout_s), reconnect=reconnect, fps=capture.fps
    )


def reader_of(via: str = "auto") -> str:
    """Return what reads RTSP on this machine: `ffmpeg` or `gstreamer`.

    Raises:
        UsageError: `via` is none of `READERS`.
        SystemProblem: GStreamer is asked for, and python3-gi is missing.
    """
    check_reader(via, READERS)
    # OpenCV's GStreamer is not used: it cannot keep the frames before the first key frame from the
    # decoder.
    available = gstreamer.load() is not None
    if via == "gstreamer" and not available:
        raise SystemProblem("RTSP by GStreamer needs python3-gi", fix=gstreamer.INSTALL)
    if via != "auto":
        return via
    better = gstreamer.has("nvv4l2decoder") or not is_installed("av")
    return "gstreamer" if available and better else "ffmpeg"


def _connect_ffmpeg(uri: str, options: CaptureOptions, *, timeout_s: float) -> Connection:
    reach(uri, timeout_s=REACH_TIMEOUT_S)
    try:
        decoder = ffmpeg.open_stream(uri, ffmpeg.RTSP_OPTIONS, timeout_s=timeout_s)
    except (ffmpeg.NoVideo, ffmpeg.NoDecoder) as error:
        raise why_not_rtsp(uri, timeout_s=timeout_s) from error
    return FfmpegStream(
        decoder,
        kind="rtsp",
        uri=uri,
        transform=options,
        capture_time=RtpClock(),
        timeout_s=timeout_s,
    )


def _connect_gstreamer(uri: str, options: CaptureOptions, *, timeout_s: float) -> Connection:
    reach(uri, timeout_s=REACH_TIMEOUT_S)
    pipeline = gst_text.rtsp(uri, options, jetson=gstreamer.has("nvv4l2decoder"))
    try:
        return gstreamer.connect(pipeline, kind="rtsp", uri=mask(uri), timeout_s=timeout_s)
    except (SourceLost, EndOfStream) as error:
        raise why_not_rtsp(uri, timeout_s=timeout_s) from error
