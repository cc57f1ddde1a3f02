"""A finished video as a source: every frame, upright, and an error when the file ends before it should."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from finedge.errors import DataError, FinedgeError
from finedge.runtime.sources.base import Frame
from finedge.runtime.sources.capture import info_of

# By name and not by trying: FFmpeg "plays" text files (its tty demuxer), playlists that open network streams, and cover art of music.
SUFFIXES = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"})
SLACK = 1  # frames: what a container announces may be one off after rounding


class VideoFile:
    """All frames of a video in order; the rotation that a phone stores in the file is applied.

    Raises:
        DataError: at the end, fewer frames than announced (cut short or damaged); of the network it is `SourceLost`, given as `broken`.
    """

    live = False

    def __init__(self, capture: cv2.VideoCapture, name: str, *, kind: str = "video", broken: type[FinedgeError] = DataError) -> None:
        self._name, self._capture, self._broken = name, capture, broken
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
            rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            captured = time.monotonic_ns()
            yield Frame(index, captured, rgb, self._name, (captured - start) / 1e6)
            index += 1
        self._check_whole(index, position_ms)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._capture.release()

    def _check_whole(self, read: int, position_ms: float) -> None:
        announced = self.info.frames or 0
        if read and (read + SLACK >= announced or self._reached_the_end(position_ms)):
            return
        raise self._broken(
            f"{self._name} ends after {read} of the {announced or 'unknown number of'} frames it announces",
            expected="a complete video",
            fix="the file is cut short or damaged: copy or record it again; the frames before that point were delivered",
        )

    def _reached_the_end(self, position_ms: float) -> bool:
        # Where a container stores no count (Matroska), the announced one is duration x rate: too high when the rate varies. Then time decides.
        seconds = (self.info.frames or 0) / (self.info.fps or 1)
        return position_ms / 1e3 >= seconds - (1 + SLACK) / (self.info.fps or 1)


def open_video(uri: str) -> VideoFile:
    """Open a video file with OpenCV's FFmpeg."""
    return VideoFile(_open(Path(uri)), uri)


def _open(path: Path) -> cv2.VideoCapture:
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", expected="a readable video file") from error
    # Absolute, because FFmpeg takes what stands before a colon for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(
            f"{path} ({size} bytes) cannot be opened as a video",
            expected=f"a complete video file that FFmpeg reads: {', '.join(sorted(SUFFIXES))}",
            fix="play it on a workstation; an MP4 whose recording was cut off has no index and cannot be read",
        )
    return capture
