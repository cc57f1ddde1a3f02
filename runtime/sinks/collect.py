"""What the model was unsure of, kept as a folder of images for the next training round.

That is whole frames, or with a finder the best crop of each visit: the picture that the classifier
saw, once for each thing and not once for each frame.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SystemProblem, UsageError
from finedge.files import writable_folder, write_bytes, write_text
from finedge.regular_files import open_regular
from finedge.runtime.events.event import Event, EventSink
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.kept_files import KeptFiles
from finedge.runtime.sinks.queued import QueuedSink
from finedge.sanitize import file_name

log = logging.getLogger(__name__)

MIB = 2**20
INDEX = "index.jsonl"
# At most one frame of a source in this time: its neighbours look the same.
EVERY_S = 1.0
JPEG_QUALITY = 95
FRAME_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-\d{6,}(-\d+)?\.jpg")


@dataclass(frozen=True)
class CollectOptions:
    """Which frames are kept, and how many.

    Kept are frames whose top probability is below `below`, and those that are `unknown`. They
    take at most `max_mib`; the oldest are removed first.
    """

    folder: Path
    below: float = 0.5
    max_mib: float = 1024.0

    def __post_init__(self) -> None:
        if not 0 < self.below <= 1 or not self.max_mib > 0:
            raise UsageError(
                f"--collect-below {self.below} --collect-max-mib {self.max_mib}",
                expected="a probability in (0, 1], and a size above 0",
            )


@dataclass
class UnsureFilter:
    """Passes on the frames that the model was unsure of, at most one of a source in `EVERY_S`."""

    below: float
    sink: Sink
    _due: dict[int, float] = field(default_factory=dict)

    def write(self, result: Result) -> None:
        """Pass it on, or not."""
        if self._is_unsure(result) and self._is_due(result):
            self.sink.write(result)

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()

    def _is_unsure(self, result: Result) -> bool:
        p = result.model_p
        return p is not None and (result.abstained or p < self.below)

    def _is_due(self, result: Result) -> bool:
        if result.seconds is None:
            return True
        if result.seconds < self._due.get(result.stream, -float("inf")):
            return False
        self._due[result.stream] = result.seconds + EVERY_S
        return True


@dataclass
class UnsureVisits:
    """Passes on the best crop of each visit whose answer stayed unknown or unsure, at its end."""

    below: float
    sink: Sink

    def write(self, event: Event) -> None:
        """Pass its crop on, or not."""
        p = event.top[0].p
        if event.kind == "ended" and (event.answer is None or p < self.below):
            self.sink.write(Result(event.record(), event.crop, event.stream, model_p=p))

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()


@dataclass
class FrameCollector:
    """Writes frames, or crops of visits, to a folder that training reads as a data set.

    A frame is DIR/LABEL/TIME-FRAME.jpg, where LABEL is the model's guess. A crop has the start of
    its visit and the number of its track there. Each has a line in
    DIR/index.jsonl: the record and "image". A frame is whole or missing. The folder may be used
    again: frames of earlier runs count, and are removed in their turn. Files of other names are
    neither counted nor touched.
    """

    options: CollectOptions
    _files: KeptFiles = field(init=False)
    _removed: int = 0

    def __post_init__(self) -> None:
        paths = filter(_is_frame, self.options.folder.glob("*/*.jpg"))
        self._files = KeptFiles(paths, max_bytes=self.options.max_mib * MIB)
        self._rewrite_index()  # its last line may be cut off

    def write(self, result: Result) -> None:
        """Keep the frame."""
        if result.image is None:
            return
        data = _jpeg(result.image)
        if len(data) > self.options.max_mib * MIB:
            log.warning(
                "a frame of %.2f MiB is not kept: it is larger than --collect-max-mib %g",
                len(data) / MIB,
                self.options.max_mib,
            )
            return
        self._make_room(len(data))
        path = self._path(result.record)
        write_bytes(path, data)
        self._files.add(path, len(data))
        line = {"image": str(path.relative_to(self.options.folder)), **result.record}
        with (self.options.folder / INDEX).open("a") as index:
            index.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Leave an index of what is there."""
        if self._removed:
            self._rewrite_index()
        log.info(
            "%s holds %d images, %.1f MiB",
            self.options.folder,
            len(self._files),
            self._files.bytes / MIB,
        )

    def _path(self, record: dict[str, Any]) -> Path:
        is_visit = "event" in record
        at = re.sub(r"[-:]", "", record["started_at" if is_visit else "captured_at"])
        folder = self.options.folder / file_name(record["top"][0]["label"])
        path = folder / f"{at}-{record['track' if is_visit else 'frame']:06d}.jpg"
        if not path.exists():
            return path
        # Two sources at the same moment.
        numbered = (path.with_name(f"{path.stem}-{i}.jpg") for i in itertools.count(1))
        return next(twin for twin in numbered if not twin.exists())

    def _make_room(self, size: int) -> None:
        self._removed += self._files.make_room(size)
        # The index is written again only when half of its lines are of removed frames. So it stays
        # in proportion, at little cost.
        if self._removed > 100 + len(self._files):
            self._rewrite_index()

    def _rewrite_index(self) -> None:
        self._removed = 0
        if not (self.options.folder / INDEX).exists():
            return
        names = {str(path.relative_to(self.options.folder)) for path in self._files.paths}
        with open_regular(self.options.folder / INDEX) as index:
            lines = index.read().decode(errors="replace").splitlines()
        text = "".join(f"{line}\n" for line in lines if _image_of(line) in names)
        write_text(self.options.folder / INDEX, text)


def _is_frame(path: Path) -> bool:
    return FRAME_NAME.fullmatch(path.name) is not None and not path.is_symlink() and path.is_file()


def _image_of(line: str) -> str | None:
    """Return the image that a line of the index names.

    None where a kill or a full disk cut the line off, or another program wrote it.
    """
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return str(entry.get("image")) if isinstance(entry, dict) else None


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise SystemProblem(
            f"OpenCV cannot encode a frame of {list(image.shape)} as JPEG",
            expected="an OpenCV with JPEG",
        )
    return data.tobytes()


def open_collect(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink of --collect; None with a finder, whose visits are collected."""
    if outputs.collect is None or context.finds:
        return None
    # The filter comes before the queue: frames that are not kept must not fill it, nor be counted
    # as missing.
    return UnsureFilter(*_collector(outputs, outputs.collect, context))


def open_collect_visits(outputs: Outputs, context: Context) -> EventSink | None:
    """Return the sink of --collect with a finder."""
    if outputs.collect is None or not context.finds:
        return None
    return UnsureVisits(*_collector(outputs, outputs.collect, context))


def _collector(outputs: Outputs, folder: Path, context: Context) -> tuple[float, Sink]:
    """Return below which probability an answer is unsure, and what keeps it."""
    options = CollectOptions(folder, below=outputs.collect_below, max_mib=outputs.collect_max_mib)
    writable_folder(options.folder, option="--collect")
    queued = QueuedSink(FrameCollector(options), name="collect", drop=context.live)
    return options.below, queued
