"""A finished video as a source: every frame, upright, and an error when the file ends before it should."""

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
from finedge.runtime.sources.capture import info_of
from finedge.runtime.sources.container import head_of, is_cut, stores_count

# By name and not by trying: FFmpeg "plays" text files (its tty demuxer), playlists that open network streams, and cover art of music.
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
SLACK = 1  # frames: what a container announces may be one off after rounding
MOTION_JPEG = frozenset({"MJPG", "mjpg", "mjpa", "jpeg"})
RAW = [cv2.CAP_PROP_FORMAT, -1]  # packets as they stand in the file
DECODERS = "H.264, H.265, MPEG-4, VP8, VP9 or MJPEG"
CONVERT = "convert it: ffmpeg -i clip.mkv -c:v libx264 clip.mp4"
FIX = "the file is cut short or damaged: copy or record it again; the frames before that point were delivered"


class VideoFile:
    """All frames of a video in order; the rotation that a phone stores in the file is applied.

    A duration is an estimate, and condemns nothing. Motion JPEG is decoded as photos are, so that
    no half picture passes.

    Args:
        capture: opened; of motion JPEG it gives the packets (`raw`).
        name: what to call it.
        kind: of the source.
        broken: the error of a video that is not whole.
        counted: the container stores how many frames it holds.
        cut: something in the file goes past its end.
        raw: each picture is the bytes of a JPEG.

    Raises:
        DataError: at the end, the file is cut short, or frames are missing or damaged; of the
            network it is `SourceLost`, given as `broken`.
    """

    live = False

    def __init__(
        self,
        capture: cv2.VideoCapture,
        name: str,
        *,
        kind: str = "video",
        broken: type[FinedgeError] = DataError,
        counted: bool = False,
        cut: bool = False,
        raw: bool = False,
    ) -> None:
        self._name, self._capture, self._broken = name, capture, broken
        self._counted, self._cut, self._raw = counted, cut, raw
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.info = info_of(capture, kind, name)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; `captured_ns` is when it was decoded."""
        index, position_ms = 0, 0.0
        while True:
            start = time.monotonic_ns()
            ok, image = self._capture.read()
            if not ok:
                break
            position_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            rgb = self._rgb(np.asarray(image), index)
            captured = time.monotonic_ns()
            yield Frame(index, captured, rgb, self._name, (captured - start) / 1e6)
            index += 1
        self._check_whole(index, position_ms)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.release()

    def _rgb(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        if not self._raw:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        try:
            return decode(image.tobytes()).image
        except Unreadable as error:
            what = f"{self._name} ends after {self._of(index)}: the next {error}"
            raise self._broken(what, expected="a complete video", fix=FIX) from error

    def _of(self, read: int) -> str:
        announced = self.info.frames
        return f"{read} of the {announced} frames it announces" if announced else f"{read} frames"

    def _check_whole(self, read: int, position_ms: float) -> None:
        announced = self.info.frames or 0
        if read == 0:
            raise self._broken(
                f"{self._name}: none of its frames can be decoded ({codec_of(self._capture)})",
                expected=DECODERS,
                fix=CONVERT,
            )
        if self._capture.grab():  # it goes on after what could not be decoded
            raise self._broken(
                f"{self._name}: a frame cannot be decoded, after {self._of(read)}",
                expected="a complete video",
                fix=FIX,
            )
        lacks = (
            self._counted and read + SLACK < announced and not self._reached_the_end(position_ms)
        )
        if lacks or self._cut:
            cut = "is cut short: it " if self._cut else ""
            raise self._broken(
                f"{self._name} {cut}ends after {self._of(read)}",
                expected="a complete video",
                fix=FIX,
            )

    def _reached_the_end(self, position_ms: float) -> bool:
        # An edit list may leave frames out.
        seconds = (self.info.frames or 0) / (self.info.fps or 1)
        return position_ms / 1e3 >= seconds - (1 + SLACK) / (self.info.fps or 1)


def open_video(uri: str) -> VideoFile:
    """Open a video file with OpenCV's FFmpeg.

    Raises:
        DataError: it is no plain file, or no video, or there is no decoder for it.
    """
    path = Path(uri)
    try:
        size = path.stat().st_size
        head, cut = head_of(path), is_cut(path)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", expected="a readable video file"
        ) from error
    # Absolute, because FFmpeg takes what stands before a colon for a protocol.
    capture, raw = _opened(str(path.absolute()))
    if not capture.isOpened():
        raise _no_video(path, size)
    return VideoFile(capture, uri, counted=stores_count(head), cut=cut, raw=raw)


def _opened(uri: str) -> tuple[cv2.VideoCapture, bool]:
    """Open what FFmpeg reads, and tell whether it gives the bytes of JPEGs; it may not be open.

    FFmpeg completes a JPEG that is cut short without a word, so these are decoded here.
    """
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, [])
    if not capture.isOpened() or not is_motion_jpeg(capture):
        return capture, False
    packets = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, RAW)
    if not packets.isOpened():
        return capture, False
    capture.release()
    return packets, True


def is_motion_jpeg(capture: cv2.VideoCapture) -> bool:
    """Tell whether each picture of an open capture is a JPEG."""
    return codec_of(capture) in MOTION_JPEG


def codec_of(capture: cv2.VideoCapture) -> str:
    """Return the four letters of a capture's codec."""
    return (
        (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF)
        .to_bytes(4, "little")
        .decode("latin-1")
        .strip("\0 ")
    )


def _no_video(path: Path, size: int) -> DataError:
    packets = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, RAW)
    if packets.isOpened():
        codec = codec_of(packets)
        packets.release()
        return DataError(
            f"{path}: this OpenCV has no decoder for its video ({codec})",
            expected=DECODERS,
            fix=CONVERT,
        )
    return DataError(
        f"{path} ({size} bytes) cannot be opened as a video",
        expected=f"a complete video file that FFmpeg reads: {', '.join(sorted(SUFFIXES))}",
        fix="play it on a workstation; an MP4 whose recording was cut off has no index and cannot be read",
    )
