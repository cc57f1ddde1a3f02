"""Opening files and network streams with FFmpeg's libraries, through PyAV.

PyAV is loaded at the first video or stream: a device that reads a V4L2 or CSI camera never loads
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from finedge.errors import SystemProblem
from finedge.runtime.machine.packages import PackageMissing, load_package
from finedge.runtime.sources.decoder import Decoder

if TYPE_CHECKING:
    from pathlib import Path

    from av.container import InputContainer
    from av.video.stream import VideoStream

OPEN_TIMEOUT_S = 5.0
# A silent connection counts as dead. Time-lapse cameras send an image every few seconds.
READ_TIMEOUT_S = 10.0
# Without fpsprobesize FFmpeg holds back the first 20 frames to guess a rate. Nothing uses it.
HTTP_OPTIONS = {"fpsprobesize": "0"}
# TCP only: over UDP a lost packet shows as an image that never was.
RTSP_OPTIONS = {**HTTP_OPTIONS, "rtsp_transport": "tcp", "allowed_media_types": "video"}
# A file may be a list of addresses, whatever its name says. None of them is opened.
FILE_OPTIONS = {"protocol_whitelist": "file"}


class NoVideo(Exception):
    """FFmpeg cannot open it, or it has no video stream."""


class NoDecoder(Exception):
    """FFmpeg has no decoder for the video. It does not say which codec it is."""


def open_file(path: Path) -> Decoder:
    """Open a video file.

    Raises:
        NoVideo: it is none.
        NoDecoder: there is no decoder for it.
        SystemProblem: PyAV is missing or broken.
    """
    av = _load()
    try:
        # "file:" and an absolute path: FFmpeg takes the text before a colon as a protocol.
        container = av.open(f"file:{path.absolute()}", options=FILE_OPTIONS)
    except av.FFmpegError as error:
        raise NoVideo(str(error)) from error
    # Every core decodes a frame of its own: that suits a file, of which all frames are wanted.
    return _decoder(container, thread_type="AUTO", thread_count=0)


def open_stream(uri: str, options: dict[str, str], *, timeout_s: float) -> Decoder:
    """Open a network address.

    Args:
        uri: of the stream.
        options: for FFmpeg.
        timeout_s: the longest wait for a read. Opening has `OPEN_TIMEOUT_S`.

    Raises:
        NoVideo: it cannot be opened, or has no video.
        NoDecoder: there is no decoder for it.
        SystemProblem: PyAV is missing or broken.
    """
    av = _load()
    try:
        container = av.open(uri, options=options, timeout=(OPEN_TIMEOUT_S, timeout_s))
    except av.FFmpegError as error:
        raise NoVideo(type(error).__name__) from error
    # One thread: each of several threads would decode a frame of its own, so as many frames as
    # threads would be held back.
    return _decoder(container, thread_type="NONE", thread_count=1)


def _load() -> Any:
    try:
        return load_package("av")
    except PackageMissing as error:
        what = f"videos and network streams need PyAV: {error.what}"
        raise SystemProblem(what, fix="pip install av") from error


def _decoder(container: InputContainer, *, thread_type: str, thread_count: int) -> Decoder:
    stream = cast("VideoStream | None", container.streams.best("video"))
    try:
        if stream is None:
            raise NoVideo("no video stream")
        if stream.codec_context is None:
            raise NoDecoder
        stream.codec_context.thread_type = thread_type
        stream.codec_context.thread_count = thread_count
        return Decoder(container, stream)
    except BaseException:
        container.close()
        raise
