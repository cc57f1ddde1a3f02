"""A finished video as a source: every frame, upright, and an error where frames are missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError, FinedgeError
from finedge.image import Unreadable, decode
from finedge.runtime.sources.base import Frame
from finedge.runtime.sources.container import is_truncated, read_head, stores_count
from finedge.runtime.sources.opencv import info_of
from finedge.sanitize import is_utf8

# A file counts as a video by its name. Trying it would not do: FFmpeg "plays" text files (its tty
# demuxer), playlists that open network streams, and cover art of music.
SUFFIXES = frozenset(
    {
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    }
)
SLACK = 1  # frames: the count of a container may be off by one after rounding
MOTION_JPEG = frozenset({"MJPG", "mjpg", "mjpa", "jpeg"})
RAW = [cv2.CAP_PROP_FORMAT, -1]  # OpenCV then returns the packets of the file
DECODERS = "H.264, H.265, MPEG-4, VP8, VP9 or MJPEG"
COMPLETE = "a complete video"
CONVERT = "convert it: ffmpeg -i clip.mkv -c:v libx264 clip.mp4"
COPY_AGAIN = (
    "the file is cut short or damaged: copy or record it again; "
    "the frames before that point were delivered"
)


class VideoFile:
    """All frames of a video in order, turned by the rotation that a phone stores in the file.

    A duration is an estimate, so it proves nothing. Motion JPEG is decoded as photos are: no half
    image passes.

    Args:
        reader: opened. Of motion JPEG it returns the packets (`raw`).
        name: of the video, in frames and errors.
        kind: of the source.
        error: the class of the error for a video that is not complete.
        counted: the container stores its frame count.
        truncated: an element of the file goes past its end.
        raw: each image is the bytes of a JPEG.

    Raises:
        DataError: at the end: the file is truncated, or frames are missing or damaged. Of the
            network it is `SourceLost`, by `error`.
    """

    live = False

    def __init__(
        self,
        reader: cv2.VideoCapture,
        name: str,
        *,
        kind: str = "video",
        error: type[FinedgeError] = DataError,
        counted: bool = False,
        truncated: bool = False,
        raw: bool = False,
    ) -> None:
        self._name, self._reader, self._error = name, reader, error
        self._counted, self._truncated, self._raw = counted, truncated, raw
        reader.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.info = info_of(reader, kind=kind, uri=name)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; `captured_ns` is when it was decoded."""
        index, position_ms = 0, 0.0
        while True:
            start = time.monotonic_ns()
            ok, image = self._reader.read()
            if not ok:
                break
            position_ms = self._reader.get(cv2.CAP_PROP_POS_MSEC)
            rgb = self._to_rgb(np.asarray(image), index)
            captured_ns = time.monotonic_ns()
            yield Frame(index, captured_ns, rgb, self._name, (captured_ns - start) / 1e6)
            index += 1
        self._check_complete(index, position_ms)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.release()

    def _to_rgb(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        if not self._raw:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        try:
            return decode(image.tobytes()).image
        except Unreadable as error:
            what = f"{self._name} ends after {self._progress(index)}: the next {error}"
            raise self._error(what, expected=COMPLETE, fix=COPY_AGAIN) from error

    def _progress(self, count: int) -> str:
        total = self.info.frames
        return f"{count} of the {total} frames it announces" if total else f"{count} frames"

    def _check_complete(self, count: int, position_ms: float) -> None:
        if count == 0:
            codec = codec_of(self._reader)
            what = f"{self._name}: none of its frames can be decoded ({codec})"
            raise self._error(what, expected=DECODERS, fix=CONVERT)
        problem = self._problem(count, position_ms)
        if problem:
            raise self._error(f"{self._name}{problem}", expected=COMPLETE, fix=COPY_AGAIN)

    def _problem(self, count: int, position_ms: float) -> str:
        """Return why a video is not complete, to be put after its name, or an empty text."""
        if self._reader.grab():  # the video continues after what could not be decoded
            return f": a frame cannot be decoded, after {self._progress(count)}"
        if self._truncated:
            return f" is cut short: it ends after {self._progress(count)}"
        missing = self._counted and count + SLACK < (self.info.frames or 0)
        if missing and not self._reached_end(position_ms):
            return f" ends after {self._progress(count)}"
        return ""

    def _reached_end(self, position_ms: float) -> bool:
        """Return whether the last frame has the time stamp of the end.

        An edit list may leave frames out, so a lower count alone proves nothing.
        """
        fps = self.info.fps or 1
        seconds = (self.info.frames or 0) / fps
        return position_ms / 1e3 >= seconds - (1 + SLACK) / fps


def open_video(uri: str) -> VideoFile:
    """Open a video file with OpenCV's FFmpeg.

    Raises:
        DataError: it is not a regular file, not a video, there is no decoder for it, or its name is
            not UTF-8: OpenCV would crash.
    """
    path = Path(uri)
    if not is_utf8(path):
        raise DataError(f"{path}: a name of other bytes", expected="UTF-8", fix="rename it")
    try:
        size = path.stat().st_size
        head, truncated = read_head(path), is_truncated(path)
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        raise DataError(what, expected="a readable video file") from error
    # Absolute, because FFmpeg takes the text before a colon as a protocol.
    reader, raw = _open(str(path.absolute()))
    if not reader.isOpened():
        raise _no_video(path, size)
    return VideoFile(reader, uri, counted=stores_count(head), truncated=truncated, raw=raw)


def _open(path: str) -> tuple[cv2.VideoCapture, bool]:
    """Return a reader of a file, and whether it returns the bytes of JPEGs. It may not be opened.

    FFmpeg completes a truncated JPEG without an error, so these are decoded here.
    """
    reader = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [])
    if not reader.isOpened() or not is_motion_jpeg(reader):
        return reader, False
    packets = cv2.VideoCapture(path, cv2.CAP_FFMPEG, RAW)
    if not packets.isOpened():
        return reader, False
    reader.release()
    return packets, True


def is_motion_jpeg(reader: cv2.VideoCapture) -> bool:
    """Return whether each image of an open capture is a JPEG."""
    return codec_of(reader) in MOTION_JPEG


def codec_of(reader: cv2.VideoCapture) -> str:
    """Return the four letters of a capture's codec."""
    code = int(reader.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("latin-1").strip("\0 ")


def _no_video(path: Path, size: int) -> DataError:
    packets = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, RAW)
    if packets.isOpened():
        codec = codec_of(packets)
        packets.release()
        what = f"{path}: this OpenCV has no decoder for its video ({codec})"
        return DataError(what, expected=DECODERS, fix=CONVERT)
    return DataError(
        f"{path} ({size} bytes) cannot be opened as a video",
        expected=f"{COMPLETE} file that FFmpeg reads: {', '.join(sorted(SUFFIXES))}",
        fix="play it on a workstation; "
        "an MP4 whose recording was cut off has no index and cannot be read",
    )
