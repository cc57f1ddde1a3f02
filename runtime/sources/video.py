"""A finished video as a source: every frame, upright, and an error where frames are missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from finedge.errors import DataError, FinedgeError
from finedge.runtime.machine.packages import load_package
from finedge.runtime.sources import ffmpeg
from finedge.runtime.sources.base import Frame
from finedge.runtime.sources.container import is_truncated
from finedge.runtime.sources.decoder import Damaged, Decoder, Picture
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
DECODERS = "H.264, H.265, AV1, MPEG-2, MPEG-4, VP8, VP9 or MJPEG"
COMPLETE = "a complete video"
CONVERT = "convert it: ffmpeg -i clip.mkv -c:v libx264 clip.mp4"
COPY_AGAIN = (
    "the file is cut short or damaged: copy or record it again; "
    "the frames before that point were delivered"
)


class VideoFile:
    """All frames of a video in order, each with its presentation time, turned as a phone says.

    Where a picture is damaged the video ends, with an error.

    Args:
        decoder: opened.
        name: of the video, in frames and errors.
        kind: of the source.
        error: the class of the error for a video that is not complete.
        truncated: an element of the file goes past its end.

    Raises:
        DataError: at the end: the file is truncated, or frames are missing or damaged. Of the
            network it is `SourceLost`, by `error`.
    """

    live = False

    def __init__(
        self,
        decoder: Decoder,
        name: str,
        *,
        kind: str = "video",
        error: type[FinedgeError] = DataError,
        truncated: bool = False,
    ) -> None:
        self._name, self._decoder, self._error = name, decoder, error
        self._truncated, self._reason = truncated, ""
        start = time.monotonic_ns()
        self._first = self._read()
        self._first_ms = (time.monotonic_ns() - start) / 1e6
        self.info = decoder.info(self._first, kind=kind, uri=name)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; `captured_ns` is when it was decoded, `seconds` its place."""
        index, last_s = 0, 0.0
        picture, decode_ms = self._first, self._first_ms
        self._first = None
        while picture is not None:
            now_ns, last_s = time.monotonic_ns(), picture.seconds
            yield Frame(index, now_ns, picture.image, self._name, decode_ms, last_s)
            start, index = time.monotonic_ns(), index + 1
            picture = self._read()
            decode_ms = (time.monotonic_ns() - start) / 1e6
        self._check_complete(index, last_s)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._decoder.close()

    def _read(self) -> Picture | None:
        """Return the next picture, or None: then `_reason` says why, or is empty at the end."""
        try:
            return self._decoder.read()
        except Damaged as error:
            self._reason = f": the next {error}"
        except load_package("av").FFmpegError as error:
            self._reason = f": reading failed ({type(error).__name__})"
        return None

    def _check_complete(self, count: int, last_s: float) -> None:
        if count == 0 and not self._truncated and not self._decoder.is_motion_jpeg:
            what = f"{self._name}: none of its frames can be decoded ({self._decoder.codec})"
            raise self._error(what, expected=DECODERS, fix=CONVERT)
        problem = self._problem(count, last_s)
        if problem:
            raise self._error(f"{self._name}{problem}", expected=COMPLETE, fix=COPY_AGAIN)

    def _problem(self, count: int, last_s: float) -> str:
        """Return why a video is not complete, to be put after its name, or an empty text."""
        total = self.info.frames
        progress = f"{count} of the {total} frames it announces" if total else f"{count} frames"
        if self._truncated:
            return f" is cut short: it ends after {progress}"
        announced = self._decoder.announced
        missing = announced is not None and self._decoder.packets + SLACK < announced
        if self._reason or (missing and not self._reached_end(last_s)):
            return f" ends after {progress}{self._reason}"
        return ""

    def _reached_end(self, last_s: float) -> bool:
        """Return whether the last frame is the one before the end.

        An edit list may leave frames out, so a lower count alone proves nothing.
        """
        end_s, period_s = self._decoder.duration_s or 0.0, 1 / (self.info.fps or 1.0)
        return last_s >= end_s - (1 + SLACK) * period_s


def open_video(uri: str) -> VideoFile:
    """Open a video file.

    Raises:
        DataError: it is not a regular file, not a video, there is no decoder for it, or its name is
            not UTF-8.
        SystemProblem: PyAV is missing or broken.
    """
    path = Path(uri)
    if not is_utf8(path):
        raise DataError(f"{path}: a name of other bytes", expected="UTF-8", fix="rename it")
    try:
        size, truncated = path.stat().st_size, is_truncated(path)
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        raise DataError(what, expected="a readable video file") from error
    try:
        return VideoFile(ffmpeg.open_file(path), uri, truncated=truncated)
    except ffmpeg.NoDecoder as error:
        what = f"{path}: FFmpeg has no decoder for its video"
        raise DataError(what, expected=DECODERS, fix=CONVERT) from error
    except ffmpeg.NoVideo as error:
        raise DataError(
            f"{path} ({size} bytes) cannot be opened as a video",
            expected=f"{COMPLETE} file that FFmpeg reads: {', '.join(sorted(SUFFIXES))}",
            fix="play it on a workstation; "
            "an MP4 whose recording was cut off has no index and cannot be read",
        ) from error
