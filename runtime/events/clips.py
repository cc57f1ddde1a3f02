"""A folder with the best crop of each visit, and a video of it.

    DIR/2026-11-28/20261128T091646.026Z-0-7-downy-woodpecker.jpg   camera 0, track 7
    DIR/2026-11-28/20261128T091646.026Z-0-7.mp4                    with --clip-before-s

A file is written beside its name and renamed. A crop waits for a disk that is full; a video does
not, and leaves no half file.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from finedge.errors import SystemProblem
from finedge.files import writable_folder, write_bytes
from finedge.runtime.events.event import Event
from finedge.runtime.events.notice import Counts, Notice, NoticeSink
from finedge.runtime.events.outbox import Outbox, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.ring import FrameRing
from finedge.runtime.sinks import Context, Result
from finedge.runtime.sinks.kept_files import KeptFiles
from finedge.runtime.sinks.queued import QueuedSink
from finedge.runtime.sinks.video import VideoWriter, frame_rate
from finedge.sanitize import file_name

log = logging.getLogger(__name__)

MIB = 2**20
MAX_OPEN = 4  # videos that are written at a time; a visit beside them gets its crop only
MAX_CLIP_S = 120.0  # of one video: a bird that sleeps on the feeder must not fill the disk
STEM = re.compile(r"\d{8}T\d{6}\.\d{3}Z-\d+-\d+(-.*)?\.(jpg|mp4)")
DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Clips:
    """Writes crops and videos in threads of their own.

    Args:
        folder: it is made where it is missing.
        context: of the run.
        before_s: how much earlier than its visit a video begins; None writes no videos.
        max_mib: the size of all files there.

    Raises:
        SystemProblem: nothing can be written in the folder.
    """

    name = "clips"

    def __init__(
        self, folder: Path, context: Context, *, before_s: float | None, max_mib: float
    ) -> None:
        writable_folder(folder, option="--clips")
        self.folder = folder
        self._files = KeptFiles(_files_of(folder), max_bytes=max_mib * MIB)
        self._recording: set[str] = set()
        self._crops = Outbox("clips", self._write_crop)
        self._recorder: Recorder | None = None
        if before_s is not None:
            self._recorder = Recorder(self._files, context, before_s=before_s)
            self._frames = QueuedSink(self._recorder, name="clips", drop=context.live)

    def see(self, result: Result) -> None:
        """Queue a frame for the videos; a full queue drops that of a camera, and a file waits."""
        if self._recorder is not None:
            self._frames.write(result)

    def write(self, notice: Notice) -> None:
        """Begin a video at the start of a visit; end it and write the crop at its end."""
        event = notice.event
        if self._recorder is not None:
            if event.kind == "started" and len(self._recording) < MAX_OPEN:
                self._recording.add(event.id)
            if event.id in self._recording:
                self._recorder.notices.append((event, self._path(event, ".mp4")))
        if event.kind == "ended":
            self._recording.discard(event.id)
            self._crops.write(notice)

    def clip_of(self, event: Event) -> Path | None:
        """Return where the video of a visit is, or will be; None where none is written."""
        return self._path(event, ".mp4") if event.id in self._recording else None

    def finish(self) -> None:
        """Begin to end."""
        self._crops.finish()

    def close(self) -> None:
        """Write what is left: an open video ends here."""
        self._crops.close()
        if self._recorder is not None:
            self._frames.close()

    @property
    def counts(self) -> Counts:
        """What became of the crops so far."""
        return self._crops.counts

    def _write_crop(self, notice: Notice) -> None:
        path = self._path(notice.event, f"-{file_name(notice.event.label)}.jpg")
        try:
            self._files.make_room(len(notice.jpeg))
            write_bytes(path, notice.jpeg)
        except OSError as error:
            raise Undelivered(
                f"{path}: {error.strerror}",
                expected="a folder that can be written, with space left",
                fix="free some space; the crops wait",
            ) from error
        self._files.add(path, len(notice.jpeg))

    def _path(self, event: Event, end: str) -> Path:
        at = datetime.fromtimestamp(event.started_at, tz=timezone.utc)
        day = f"{at.astimezone():%Y-%m-%d}"
        time = f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03}Z"
        return self.folder / day / f"{time}-{event.stream}-{event.track}{end}"


@dataclass
class Clip:
    """A video that is being written: of which source, and when it began on the source's clock."""

    writer: VideoWriter
    stream: int
    began_s: float


class Recorder:
    """Writes the videos of visits. It runs in the thread of a `QueuedSink`, and raises nothing.

    `notices` holds starts and ends in their order. Each is seen with the next frame at the latest.
    """

    def __init__(self, files: KeptFiles, context: Context, *, before_s: float) -> None:
        self.notices: deque[tuple[Event, Path]] = deque()
        self._files, self._context, self._before_s = files, context, before_s
        # A visit starts some frames after the first of them.
        self._rings = [FrameRing(before_s + 5.0) for _ in context.names]
        self._clips: dict[str, Clip] = {}
        self._said = False

    def write(self, result: Result) -> None:
        """Take a frame."""
        self._rings[result.stream].add(result)
        if result.image is not None and result.seconds is not None:
            for key, clip in list(self._clips.items()):
                if clip.stream == result.stream:
                    self._append(key, result)
                    if result.seconds - clip.began_s > MAX_CLIP_S:
                        self._end(key)
        self._follow()  # after the frame: the first video begins with it

    def close(self) -> None:
        """End every video."""
        self._follow()
        for key in list(self._clips):
            self._end(key)

    def _follow(self) -> None:
        while self.notices:
            event, path = self.notices.popleft()
            if event.kind == "started":
                self._begin(event, path)
            else:
                self._end(event.id)

    def _begin(self, event: Event, path: Path) -> None:
        ring, stream = self._rings[event.stream], event.stream
        if ring.newest_s is None:
            return
        fps = frame_rate(self._context.fps[stream], live=self._context.live)
        began_s = ring.newest_s - event.seconds - self._before_s
        writer = VideoWriter(path, fps, self._context.live)
        self._clips[event.id] = Clip(writer, stream, began_s)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(event.id, error)
        for result in ring.since(began_s):
            self._append(event.id, result)

    def _append(self, key: str, result: Result) -> None:
        clip = self._clips.get(key)
        if clip is None:
            return
        try:
            clip.writer.write(result)
        except Exception as error:
            self._fail(key, error)

    def _end(self, key: str) -> None:
        clip = self._clips.get(key)
        if clip is None:
            return
        try:
            clip.writer.close()
            size = clip.writer.path.stat().st_size
            self._files.make_room(size)
            self._files.add(clip.writer.path, size)
            self._said = False
        except Exception as error:  # also of OpenCV: a video must not end the stream
            self._fail(key, error)
        self._clips.pop(key, None)

    def _fail(self, key: str, error: Exception) -> None:
        """Leave no half file, and say the first of several failures."""
        clip = self._clips.pop(key)
        log.debug("%s: the traceback", clip.writer.path, exc_info=error)
        try:
            clip.writer.abandon()
        except OSError as second:
            log.debug("%s: %s", clip.writer.path, second)
        if not self._said:
            text = SystemProblem(
                f"a video is lost: {error}",
                expected="a folder that can be written, with 64 MiB left",
                fix="free some space; the next visit is tried again",
            )
            log.warning("--clips: %s", text)
        self._said = True


def _files_of(folder: Path) -> list[Path]:
    """Return the files of earlier runs."""
    return [
        path
        for path in folder.glob("*/*")
        if STEM.fullmatch(path.name)
        and DAY.fullmatch(path.parent.name)
        and path.is_file()
        and not path.is_symlink()
    ]


def open_clips(
    outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
) -> NoticeSink | None:
    """Return the sink of --clips."""
    if outputs.clips is None:
        return None
    return Clips(
        outputs.clips, context, before_s=outputs.clip_before_s, max_mib=outputs.clips_max_mib
    )
