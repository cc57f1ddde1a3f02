"""The frames with their labels as a video file."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from finedge.errors import SystemProblem, UsageError
from finedge.files import writable_folder
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.overlay import draw
from finedge.runtime.sinks.queued import QueuedSink
from finedge.sanitize import is_utf8

log = logging.getLogger(__name__)

# OpenCV's FFmpeg writes to stderr by itself.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
PHOTO_FPS, LIVE_FPS = 1.0, 25.0  # of sources that do not report their rate
MAX_FPS = 240.0  # some network cameras report 90000, the clock of their packets
MAX_GAP_S = 1.0
JITTER = 1.0  # frames that may come before their time
MIN_FREE = 64 * 2**20  # bytes: an index of hours must still fit when the file is closed


@dataclass
class VideoWriter:
    """Writes one source's frames to a video.

    It writes `.NAME.partial.SUFFIX` and renames that when closed; a kill leaves it. The video has
    the pace of `Result.seconds`, because many cameras do not keep the rate that they report. A
    frame is shown until the next one, for at most a second. A live source that is faster than
    `fps` loses a frame now and then. Photos have no time: each is shown once. All frames have the
    size of the first.

    Args:
        path: the video.
        fps: its frames a second.
        live: whether frames may be left out.
    """

    path: Path
    fps: float
    live: bool = False
    _writer: cv2.VideoWriter | None = None
    _size: tuple[int, int] = (0, 0)
    _last: tuple[cv2.typing.MatLike, float | None] | None = None
    _due: float = 0.0  # frames that the time so far amounts to
    _written: int = 0

    def write(self, result: Result) -> None:
        """Append a frame; a silence adds none.

        Raises:
            OSError: the disk is nearly full. The frames so far become a whole video when closed.
        """
        if result.image is None:
            return
        if shutil.disk_usage(self.path.parent).free < MIN_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        picture: cv2.typing.MatLike = draw(result.image, result.record, things=result.things or ())
        if self._writer is None:
            self._size = picture.shape[1], picture.shape[0]
            self._writer = self._open()
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._fill(result.seconds)
        if not self.live or self._written < self._due + 1 + JITTER:
            self._append(picture)
        self._last = picture, result.seconds

    def close(self) -> None:
        """Finish the file; without a frame there is none.

        Raises:
            SystemProblem: not all of it reached the disk.
        """
        if self._writer is None:
            return
        self._writer.release()
        capture = cv2.VideoCapture(str(self._partial().absolute()), cv2.CAP_FFMPEG)
        # OpenCV's writer does not report a full disk.
        if capture.get(cv2.CAP_PROP_FRAME_COUNT) != self._written:
            raise SystemProblem(
                f"{self._partial()} is damaged: {self._written} frames were written",
                expected="a disk with space left",
            )
        self._partial().replace(self.path)
        log.info("wrote %s", self.path)

    def abandon(self) -> None:
        """Leave no file, and nothing of one."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._partial().unlink(missing_ok=True)

    def _fill(self, seconds: float | None) -> None:
        """Show the last frame until `seconds`."""
        if self._last is None:
            return
        picture, before = self._last
        gap_s = 1 / self.fps
        if seconds is not None and before is not None:
            gap_s = min(max(0.0, seconds - before), MAX_GAP_S)
        self._due += gap_s * self.fps
        while self._written < round(self._due):
            self._append(picture)

    def _append(self, picture: cv2.typing.MatLike) -> None:
        if self._writer is not None:
            self._writer.write(picture)
            self._written += 1

    def _open(self) -> cv2.VideoWriter:
        # A killed run may have left a file there, or somebody a link or a pipe. FFmpeg would write
        # into it.
        with suppress(IsADirectoryError, PermissionError):
            self._partial().unlink(missing_ok=True)
        if not is_utf8(self.path):  # OpenCV would crash
            raise SystemProblem(f"{self.path}: a name of other bytes", expected="UTF-8")
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(
            str(self._partial().absolute()), cv2.CAP_FFMPEG, codec, self.fps, self._size
        )
        if not writer.isOpened():
            width, height = self._size
            raise SystemProblem(
                f"OpenCV cannot write {self.path} "
                f"({codec_name(self.path)}, {width}x{height}, {self.fps:g} frames/s)",
                expected="a folder that can be written, and OpenCV with FFmpeg",
                fix="try a name that ends in .avi, or in .mp4",
            )
        return writer

    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")


@dataclass
class Videos:
    """One video for each source."""

    files: tuple[VideoWriter, ...]

    def write(self, result: Result) -> None:
        """Append to the video of the result's source."""
        self.files[result.stream].write(result)

    def close(self) -> None:
        """Finish every file, even if one of them fails."""
        with ExitStack() as exits:
            for file in self.files:
                exits.callback(file.close)


def codec_name(path: Path) -> str:
    """Return the codec for a file name.

    Raises:
        UsageError: no codec goes with its suffix.
    """
    if path.suffix.lower() not in CODECS:
        raise UsageError(f"--save {path}", expected=f"a name that ends in {' or '.join(CODECS)}")
    return CODECS[path.suffix.lower()]


def frame_rate(reported: float | None, *, live: bool) -> float:
    """Return the frames a second of the video of a source that reports `reported`."""
    if reported and (reported <= MAX_FPS or not live):
        return reported
    return LIVE_FPS if live else PHOTO_FPS


def open_video(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink of --save: out.mp4, or out-0.mp4, out-1.mp4, ... for several sources."""
    if outputs.save is None:
        return None
    path, paths = outputs.save, [outputs.save]
    codec_name(path)
    if len(context.names) > 1:
        numbers = range(len(context.names))
        paths = [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in numbers]
    paths = [_real_path(path) for path in paths]
    for folder in {path.parent for path in paths}:
        writable_folder(folder, option="--save")
    files = tuple(
        VideoWriter(p, frame_rate(fps, live=context.live), context.live)
        for p, fps in zip(paths, context.fps, strict=True)
    )
    return QueuedSink(Videos(files), name="save", drop=context.live)


def _real_path(path: Path) -> Path:
    """Follow links to the file that is replaced, as `finedge.files` does: the link stays.

    Raises:
        SystemProblem: the path is not a file.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) and not real.is_file():
        raise SystemProblem(
            f"--save {path} is no file", expected="a new name, or a file to replace"
        )
    return real
