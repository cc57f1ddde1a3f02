"""How things are found, as the options of `finedge classify` name it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import UsageError
from finedge.runtime.find.camera import MAX_OBJECTS, CameraFinder
from finedge.runtime.find.crops import MARGIN
from finedge.runtime.find.detector.class_names import read_classes
from finedge.runtime.find.finder import Finder
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.find.zones import areas_of, parse_mask, parse_zone

NONE, MOTION = "none", "motion"
FORM = "none, motion, or a detector's MODEL.onnx"
THRESHOLD = 0.4
MOST_OBJECTS = 64
GAP_S = 3.0
IDLE_S = 10.0


@dataclass(frozen=True)
class FindOptions:
    """Find the things in a frame first, and classify each; a line is then a thing of a frame.

    Attributes:
        find: none, motion (what moves against the background of a camera that stands still), or a
            detector: MODEL.onnx.
        find_classes: the detector's classes to keep, by name or number, with commas; all without.
        find_names: a text file with a class name of the detector in each line; without it those in
            the model's metadata, or numbers.
        find_threshold: boxes of a detector that is less sure are dropped.
        crop_margin: around a box, as a fraction of its longer side, on each side.
        max_objects: classify at most so many things of a frame.
        zone: NAME=x,y,x,y,...: only things whose middle is in a zone count. Corners in pixels, or
            in fractions of the frame. 1:NAME=... is for the second source only.
        mask: x,y,x,y,...: nothing in it counts; as for a zone.
        idle_s: while nothing is found, print a line with status "idle" once in so many seconds.
        visit_gap_s: a thing that is not seen for so long has left; its visit ends.
    """

    find: str = NONE
    find_classes: str | None = None
    find_names: Path | None = None
    find_threshold: float = THRESHOLD
    crop_margin: float = MARGIN
    max_objects: int = MAX_OBJECTS
    zone: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    idle_s: float = IDLE_S
    visit_gap_s: float = GAP_S

    def __post_init__(self) -> None:
        if not 0 < self.find_threshold < 1:
            raise UsageError(f"--find-threshold {self.find_threshold}", expected="in (0, 1)")
        if not 0 <= self.crop_margin <= 2:
            raise UsageError(f"--crop-margin {self.crop_margin}", expected="0 to 2")
        if not 1 <= self.max_objects <= MOST_OBJECTS:
            raise UsageError(f"--max-objects {self.max_objects}", expected=f"1 to {MOST_OBJECTS}")
        if not (0 <= self.idle_s < math.inf and 0 < self.visit_gap_s < math.inf):
            raise UsageError(
                f"--idle-s {self.idle_s} --visit-gap-s {self.visit_gap_s}",
                expected="seconds, and a gap above 0",
            )
        named = self.find_classes is not None or self.find_names is not None
        if named and self.find in (NONE, MOTION):
            raise UsageError(
                "--find-classes or --find-names without a detector", expected="--find MODEL.onnx"
            )
        for zone in self.zone:
            parse_zone(zone)
        for mask in self.mask:
            parse_mask(mask)
        if not self.is_on and (self.zone or self.mask):
            raise UsageError("--zone or --mask without --find", expected=f"--find {FORM}")

    @property
    def is_on(self) -> bool:
        """Whether a finder runs."""
        return self.find != NONE


def open_finders(options: FindOptions, *, cameras: int) -> list[CameraFinder]:
    """Return a finder for each of so many sources; none without `--find`.

    Raises:
        UsageError: an unknown finder, or a zone of a source that is not there.
        DataError: a detector that cannot be read.
    """
    if not options.is_on:
        return []
    _check_cameras(options, cameras)
    finders = _finders(options, cameras)
    return [
        CameraFinder(
            finder,
            areas_of(options.zone, options.mask, camera=number),
            options.max_objects,
            options.crop_margin,
        )
        for number, finder in enumerate(finders)
    ]


def _finders(options: FindOptions, cameras: int) -> Sequence[Finder]:
    if options.find == MOTION:
        return [MotionFinder() for _ in range(cameras)]
    if not options.find.lower().endswith(".onnx"):
        raise UsageError(f"--find {options.find}", expected=FORM)
    from finedge.runtime.find.detector import detector  # most runs do without ONNX Runtime here

    network, metadata = detector.open_network(Path(options.find))
    classes = read_classes(metadata, file=options.find_names, kept=options.find_classes)
    opened = detector.open_detector(network, classes, threshold=options.find_threshold)
    return [opened] * cameras


def _check_cameras(options: FindOptions, cameras: int) -> None:
    polygons = [*map(parse_zone, options.zone), *map(parse_mask, options.mask)]
    for polygon in polygons:
        if polygon.camera is not None and polygon.camera >= cameras:
            raise UsageError(
                polygon.text, expected=f"a source by its place: 0 to {cameras - 1} in this run"
            )
