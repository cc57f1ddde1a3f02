"""Frames that the model was unsure of, kept as a folder of images for the next training round."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SystemProblem, UsageError
from finedge.files import writable_folder, write_bytes, write_text
from finedge.regular_files import open_regular
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.behind import Behind
from finedge.sanitize import file_name

log = logging.getLogger(__name__)

MIB = 2**20
INDEX = "index.jsonl"
EVERY_S = 1.0  # at most one frame of a source in this time: its neighbours look the same
QUALITY = 95
OURS = re.compile(r"\d{8}T\d{6}\.\d{3}Z-\d{6,}(-\d+)?\.jpg")


@dataclass(frozen=True)
class Collecting:
    """What is kept: frames whose top probability is below `below`, or that are `unknown`; `max_mib` of them, the oldest go first."""

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
class Unsure:
    """Hands on the frames that the model was unsure of, at most one of a source in `EVERY_S`."""

    below: float
    sink: Sink
    _due: dict[int, float] = field(default_factory=dict)

    def write(self, result: Result) -> None:
        """Hand it on, or not."""
        if self._wanted(result):
            self.sink.write(result)

    def close(self) -> None:
        """Close what it hands on to."""
        self.sink.close()

    def _wanted(self, result: Result) -> bool:
        prediction = result.prediction
        if prediction is None or not (prediction.unknown or prediction.top[0].p < self.below):
            return False
        if result.seconds is None:
            return True
        if result.seconds < self._due.get(result.stream, -float("inf")):
            return False
        self._due[result.stream] = result.seconds + EVERY_S
        return True


@dataclass
class Collector:
    """Writes DIR/LABEL/TIME-FRAME.jpg (an ImageFolder; LABEL is the model's guess) and a line of DIR/index.jsonl for each: the record and "image".

    A frame is whole or not there. The folder may be used again: frames of earlier runs count, and are removed when their turn comes; files
    of other names are neither counted nor touched.
    """

    how: Collecting
    _kept: deque[tuple[Path, int]] = field(default_factory=deque)
    _bytes: int = 0
    _gone: int = 0

    def __post_init__(self) -> None:
        # A name begins with its time, so names sort by age.
        for path in sorted(filter(_is_ours, self.how.folder.glob("*/*.jpg")), key=lambda p: p.name):
            self._remember(path, path.stat().st_size)
        self._make_room(0)
        self._rewrite_index()  # its last line may be cut off

    def write(self, result: Result) -> None:
        """Keep the frame."""
        if result.image is None:
            return
        data = _jpeg(result.image)
        if len(data) > self.how.max_mib * MIB:
            log.warning(
                "a frame of %.2f MiB is left out: --collect-max-mib %g",
                len(data) / MIB,
                self.how.max_mib,
            )
            return
        self._make_room(len(data))
        path = self._path(result.record)
        write_bytes(path, data)
        self._remember(path, len(data))
        line = {"image": str(path.relative_to(self.how.folder)), **result.record}
        with (self.how.folder / INDEX).open("a") as index:
            index.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Leave an index of what is there."""
        if self._gone:
            self._rewrite_index()
        log.info(
            "%s holds %d frames, %.1f MiB", self.how.folder, len(self._kept), self._bytes / MIB
        )

    def _path(self, record: dict[str, Any]) -> Path:
        at = re.sub(r"[-:]", "", record["captured_at"])
        path = (
            self.how.folder
            / file_name(record["top"][0]["label"])
            / f"{at}-{record['frame']:06d}.jpg"
        )
        twins = (
            path.with_name(f"{path.stem}-{i}.jpg") for i in itertools.count(1)
        )  # two sources at the same moment
        return path if not path.exists() else next(p for p in twins if not p.exists())

    def _remember(self, path: Path, size: int) -> None:
        self._kept.append((path, size))
        self._bytes += size

    def _make_room(self, size: int) -> None:
        while self._kept and self._bytes + size > self.how.max_mib * MIB:
            path, freed = self._kept.popleft()
            path.unlink(missing_ok=True)
            with contextlib.suppress(
                OSError
            ):  # not empty; an empty one would be a class without images
                path.parent.rmdir()
            self._bytes -= freed
            self._gone += 1
        # Written anew only when half of it is of frames that are gone: so it stays in proportion, at little cost.
        if self._gone > 100 + len(self._kept):
            self._rewrite_index()

    def _rewrite_index(self) -> None:
        self._gone = 0
        if not (self.how.folder / INDEX).exists():
            return
        there = {str(path.relative_to(self.how.folder)) for path, _ in self._kept}
        with open_regular(self.how.folder / INDEX) as index:
            lines = index.read().decode(errors="replace").splitlines()
        write_text(
            self.how.folder / INDEX,
            "".join(f"{line}\n" for line in lines if _image_of(line) in there),
        )


def _is_ours(path: Path) -> bool:
    return OURS.fullmatch(path.name) is not None and not path.is_symlink() and path.is_file()


def _image_of(line: str) -> str | None:
    """Return what a line of the index names; None where a kill or a full disk cut it off, or somebody else wrote it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return str(found.get("image")) if isinstance(found, dict) else None


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    if not ok:
        raise SystemProblem(
            f"OpenCV cannot encode a frame of {list(image.shape)} as JPEG",
            expected="an OpenCV with JPEG",
        )
    return data.tobytes()


def open_collect(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink of --collect."""
    if outputs.collect is None:
        return None
    how = Collecting(outputs.collect, below=outputs.collect_below, max_mib=outputs.collect_max_mib)
    writable_folder(how.folder, option="--collect")
    # Chosen in front of the queue: what nobody wants does not fill it, and is not counted as left out.
    return Unsure(how.below, Behind(Collector(how), name="collect", drop=context.live))
