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
from finedge.runtime.sinks.behind import Behind
from finedge.runtime.sinks.overlay import draw

log = logging.getLogger(__name__)

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
PHOTO_FPS, LIVE_FPS = 1.0, 25.0  # of sources that do not say theirs
MOST_FPS = 240.0  # some network cameras say 90000, the clock of their packets
LONGEST_GAP_S = 1.0
JITTER = 1.0  # frames that may come ahead of their time
LEAST_FREE = 64 * 2**20  # bytes: an index of hours must still fit when the file is closed


@dataclass
class VideoFile:
    """Writes one source's frames beside `path`, and renames when closed: a kill leaves `.NAME.partial.SUFFIX`.

    The video has the pace of `Result.seconds`, since many cameras do not keep the rate they say they have: until the next frame came the last
    one is shown, by up to a second, and of a live source that is faster than `fps` a frame is left out here and there. Photos, which have no
    time, are shown once each. All frames have the size of the first.

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
    _due: float = 0.0  # how many frames the time so far is worth
    _written: int = 0

    def write(self, result: Result) -> None:
        """Append a frame; a silence adds none.

        Raises:
            OSError: the disk is nearly full; what was written so far becomes a whole video when closed.
        """
        if result.image is None:
            return
        if shutil.disk_usage(self.path.parent).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        picture: cv2.typing.MatLike = draw(result.image, result.record)
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
        found = cv2.VideoCapture(str(self._partial().absolute()), cv2.CAP_FFMPEG).get(
            cv2.CAP_PROP_FRAME_COUNT
        )
        if found != self._written:  # OpenCV's writer keeps a full disk to itself
            raise SystemProblem(
                f"{self._partial()} is damaged: {self._written} frames were written",
                expected="a disk with space left",
            )
        self._partial().replace(self.path)
        log.info("wrote %s", self.path)

    def _fill(self, seconds: float | None) -> None:
        """Show the last frame until `seconds`."""
        if self._last is None:
            return
        picture, before = self._last
        passed = (
            1 / self.fps
            if seconds is None or before is None
            else min(max(0.0, seconds - before), LONGEST_GAP_S)
        )
        self._due += passed * self.fps
        while self._written < round(self._due):
            self._append(picture)

    def _append(self, picture: cv2.typing.MatLike) -> None:
        if self._writer is not None:
            self._writer.write(picture)
            self._written += 1

    def _open(self) -> cv2.VideoWriter:
        # What a killed run left, or a link or pipe that somebody put there: FFmpeg would write into it.
        with suppress(IsADirectoryError, PermissionError):
            self._partial().unlink(missing_ok=True)
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(
            str(self._partial().absolute()), cv2.CAP_FFMPEG, codec, self.fps, self._size
        )
        if not writer.isOpened():
            width, height = self._size
            raise SystemProblem(
                f"OpenCV cannot write {self.path} ({codec_name(self.path)}, {width}x{height}, {self.fps:g} frames/s)",
                expected="a folder that can be written, and OpenCV with FFmpeg",
                fix="try a name that ends in .avi, or in .mp4",
            )
        return writer

    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")


@dataclass
class Videos:
    """One video a source."""

    files: tuple[VideoFile, ...]

    def write(self, result: Result) -> None:
        """Append to the video of the result's source."""
        self.files[result.stream].write(result)

    def close(self) -> None:
        """Finish every file, also where one cannot be finished."""
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


def frame_rate(said: float | None, *, live: bool) -> float:
    """Return the frames a second of a video of a source that says `said`."""
    if said and (said <= MOST_FPS or not live):
        return said
    return LIVE_FPS if live else PHOTO_FPS


def open_video(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink of --save: out.mp4; of several sources out-0.mp4, out-1.mp4, ..."""
    if outputs.save is None:
        return None
    path, several = outputs.save, len(context.names) > 1
    codec_name(path)
    paths = [
        path.with_name(f"{path.stem}-{i}{path.suffix}") if several else path
        for i in range(len(context.names))
    ]
    paths = [_place(path) for path in paths]
    for folder in {path.parent for path in paths}:
        writable_folder(folder, option="--save")
    files = tuple(
        VideoFile(p, frame_rate(fps, live=context.live), context.live)
        for p, fps in zip(paths, context.fps, strict=True)
    )
    return Behind(Videos(files), name="save", drop=context.live)


def _place(path: Path) -> Path:
    """Return the file behind links, which is replaced as `finedge.files` replaces: the link stays.

    Raises:
        SystemProblem: something that is no file is there.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) and not real.is_file():
        raise SystemProblem(
            f"--save {path} is no file", expected="a new name, or a file to replace"
        )
    return real
