"""The frames with their labels as a video file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.behind import Behind
from finedge.runtime.sinks.overlay import draw

log = logging.getLogger(__name__)

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
PHOTO_FPS = 1.0  # of sources without a frame rate
LONGEST_GAP_S = 1.0


@dataclass
class VideoFile:
    """Writes one source's frames beside `path`, and renames when closed: a kill leaves `.NAME.partial.SUFFIX`.

    The video has the source's frame rate and its pace: for a frame that was dropped the one before is shown longer, by up to a second.
    All frames have the size of the first.
    """

    path: Path
    fps: float
    _writer: cv2.VideoWriter | None = None
    _size: tuple[int, int] = (0, 0)
    _last: int = field(default=-1)

    def write(self, result: Result) -> None:
        """Append a frame; a silence adds none."""
        if result.image is None:
            return
        picture = draw(result.image, result.record)
        if self._writer is None:
            self._size, self._last = (picture.shape[1], picture.shape[0]), result.record["frame"] - 1
            self._writer = self._open()
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        gap = result.record["frame"] - self._last
        for _ in range(max(1, min(gap, round(LONGEST_GAP_S * self.fps)))):
            self._writer.write(picture)
        self._last = result.record["frame"]

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        if self._writer is not None:
            self._writer.release()
            self._partial().replace(self.path)
            log.info("wrote %s", self.path)

    def _open(self) -> cv2.VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._partial().absolute()), cv2.CAP_FFMPEG, codec, self.fps, self._size)
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
        """Finish every file."""
        for file in self.files:
            file.close()


def codec_name(path: Path) -> str:
    """Return the codec for a file name.

    Raises:
        UsageError: no codec goes with its suffix.
    """
    if path.suffix.lower() not in CODECS:
        raise UsageError(f"--save {path}", expected=f"a name that ends in {' or '.join(CODECS)}")
    return CODECS[path.suffix.lower()]


def open_video(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink of --save: out.mp4; of several sources out-0.mp4, out-1.mp4, ..."""
    if outputs.save is None:
        return None
    path, several = outputs.save, len(context.names) > 1
    codec_name(path)
    paths = [path.with_name(f"{path.stem}-{i}{path.suffix}") if several else path for i in range(len(context.names))]
    files = tuple(VideoFile(p, fps or PHOTO_FPS) for p, fps in zip(paths, context.fps, strict=True))
    return Behind(Videos(files), name="save", drop=context.live)
