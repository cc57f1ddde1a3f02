"""Open every variant of some bundles, measure its accuracy, then time all of them interleaved."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finedge.bundle import Bundle
from finedge.data import EvaluationSplit
from finedge.errors import UsageError
from finedge.runtime.backend import SessionOptions, get_backend, usual_variants
from finedge.runtime.benchmark.accuracy import choose
from finedge.runtime.benchmark.camera import CameraLane
from finedge.runtime.benchmark.frames import (
    Frames,
    garden_frames,
    image_frames,
    labelled_images,
    rendered_frames,
)
from finedge.runtime.benchmark.key import Key
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.modes import CAMERA, Mode
from finedge.runtime.benchmark.options import FrameOptions, MeasurementOptions
from finedge.runtime.benchmark.replay import FPS
from finedge.runtime.benchmark.run import interleave
from finedge.runtime.benchmark.schedule import MIN_BLOCKS
from finedge.runtime.classifier import Classifier
from finedge.runtime.early_exit.open import check_segments
from finedge.runtime.early_exit.record import titled
from finedge.runtime.evaluate.labelled import SplitOptions
from finedge.runtime.evaluate.predict import Answers, predict
from finedge.runtime.find.options import FindOptions, open_finders
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions
from finedge.runtime.machine.sysfs import UNKNOWN
from finedge.runtime.telemetry.environment import environment
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.choose import Request, is_check_on

log = logging.getLogger(__name__)

BIRDS = 3  # in the rendered garden
NO_LABELS = "not measured: no labelled data"
Labelled = Mapping[str, EvaluationSplit | None]  # the images that each bundle is measured on


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured, on which images, with which frames.

    Raises:
        UsageError: a finder without camera mode, or early exits with a second look.
    """

    run: MeasurementOptions
    dataset: SplitOptions
    frames: FrameOptions
    finding: FindOptions = field(default_factory=FindOptions)
    look: LookOptions = ONE_LOOK

    def __post_init__(self) -> None:
        if self.finding.is_on and CAMERA not in (mode.name for mode in self.run.modes):
            raise UsageError(
                f"--find {self.finding.find} --mode {self.run.mode}",
                expected="--mode camera: other modes have no stream to find things in",
            )
        if self.look.look_twice and self.run.early_exit:
            raise UsageError("--look-twice with --early-exit", expected="one of them")


@dataclass(frozen=True)
class Measured:
    """Everything that one run produced.

    Attributes:
        bundles: the bundles by name.
        lanes: one for each row.
        environment: the machine, read before the first frame: its load is that of other programs.
        answers: by what gave them; empty without labelled data.
        note: what the accuracy was measured on, if not on the whole split.
        data: where the images of each bundle are from.
        threads: CPU threads of the sessions; None is the physical cores this process may use.
        choices: what `auto` runs of each bundle here; empty where the check is switched off.
    """

    bundles: Mapping[str, Bundle]
    lanes: Sequence[BenchmarkLane]
    environment: Mapping[str, Any]
    answers: Mapping[Key, Answers] = field(default_factory=dict)
    note: str = ""
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: int | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def throttled(self) -> bool | str:
        """Whether the machine was slowed while measuring; "unknown" where a reading is missing."""
        states = [reading.throttled for lane in self.lanes for reading in lane.readings]
        if any(states):
            return True
        return UNKNOWN if None in states else False

    @property
    def throttled_by(self) -> tuple[str, ...]:
        """What slowed the machine, each cause once."""
        causes = (
            cause
            for lane in self.lanes
            for reading in lane.readings
            for cause in reading.throttled_by
        )
        return tuple(dict.fromkeys(causes))


def measure(bundles: Mapping[str, Bundle], options: BenchmarkOptions) -> Measured:
    """Open every variant, measure its accuracy, then time all of them interleaved.

    Raises:
        FinedgeError: no backend, data or variant of this kind; see `Classifier.open`.
    """
    machine = environment()
    keys = tuple(_keys(bundles, options.run))
    labelled = {name: labelled_images(b, options.dataset) for name, b in bundles.items()}
    with ExitStack() as exits:
        classifiers = {
            key: exits.enter_context(_open(bundles[key.bundle], key, options)) for key in keys
        }
        answers, note = _accuracies(classifiers, labelled, limit=options.frames.accuracy_images)
        lanes = _timed(classifiers, _frames(labelled, options), options=options, exits=exits)
    origins = {name: images.record for name, images in labelled.items() if images is not None}
    threads, choices = options.run.threads, _choices(bundles, options.run)
    return Measured(bundles, lanes, machine, answers, note, origins, threads, choices)


def _choices(bundles: Mapping[str, Bundle], run: MeasurementOptions) -> dict[str, Choice]:
    """Return what `auto` runs of each bundle, timed now as `finedge classify` would time it.

    The rows cannot tell: their threads spin, and a camera's do not.
    """
    if not is_check_on():
        return {}
    options = SessionOptions(run.threads)
    opener = get_backend(run.backend, options=options)
    any_backend = run.backend == "auto"
    requests = {
        name: Request(opener, bundle, options, again=True, any_backend=any_backend)
        for name, bundle in bundles.items()
    }
    return {name: Classifier.choose_variant(request) for name, request in requests.items()}


def _keys(bundles: Mapping[str, Bundle], run: MeasurementOptions) -> Iterator[Key]:
    """Yield what is measured: each bundle's variants, then with early exits where it has segments.

    Raises:
        BundleError: early exits are asked for, and no bundle has segments.
    """
    cut = {name for name, bundle in bundles.items() if bundle.export.segments.exits}
    if run.early_exit and not cut:
        check_segments(next(iter(bundles.values())))
    backend = get_backend(run.backend)
    for name, bundle in bundles.items():
        variants = run.chosen_variants or usual_variants(backend, bundle)
        yield from (Key(name, variant) for variant in variants)
        if run.early_exit and name in cut:
            yield from (Key(name, variant, early_exit=True) for variant in variants)


def _open(bundle: Bundle, key: Key, options: BenchmarkOptions, *, spin: bool = True) -> Classifier:
    run = options.run
    return Classifier.open(
        bundle,
        variant=key.variant,
        backend=run.backend,
        threads=run.threads,
        spin=spin,
        early_exit=key.early_exit,
        look=options.look,
    )


def _accuracies(
    classifiers: Mapping[Key, Classifier], labelled: Labelled, *, limit: int | None
) -> tuple[dict[Key, Answers], str]:
    """Return the answers of every variant to its labelled images, and a note on them."""
    answers = {}
    for key, classifier in classifiers.items():
        images = labelled[key.bundle]
        if images is not None:
            log.info("accuracy of %s %s", titled(key.bundle, key.early_exit), key.variant)
            answers[key] = predict(classifier, choose(images.items, limit))
    if not answers:
        return {}, NO_LABELS
    return answers, "" if limit is None else f"measured on at most {limit} images of the split"


def _frames(labelled: Labelled, options: BenchmarkOptions) -> Frames:
    """Return images of the first bundle that has some, else rendered scenes."""
    count = options.frames.images
    for images in labelled.values():
        if images is not None and images.items:
            return image_frames(images.items, count=count, split=options.dataset.split)
    return rendered_frames(count)


def _timed(
    classifiers: Mapping[Key, Classifier],
    frames: Frames,
    *,
    options: BenchmarkOptions,
    exits: ExitStack,
) -> list[BenchmarkLane]:
    """Measure all lanes; those of camera mode come last, among themselves."""
    modes, plan = options.run.modes, options.run.schedule
    asking = [
        BenchmarkLane(key.bundle, classifier, mode, frames)
        for mode in modes
        if mode.name != CAMERA
        for key, classifier in classifiers.items()
    ]
    interleave(asking, plan)
    watching: list[BenchmarkLane] = []
    if CAMERA in (mode.name for mode in modes):
        watching += _camera_lanes(classifiers, frames, options=options, exits=exits)
    # Few long blocks: each starts threads, and perhaps a connection.
    interleave(watching, replace(plan, blocks=MIN_BLOCKS, rewarm_s=0.0))
    return [*asking, *watching]


def _camera_lanes(
    classifiers: Mapping[Key, Classifier],
    frames: Frames,
    *,
    options: BenchmarkOptions,
    exits: ExitStack,
) -> Iterator[CameraLane]:
    """Open every classifier again, as `finedge classify` opens it.

    Threads that spin while they wait would take the core of the preprocessing.
    """
    uri, fps = options.frames.source, options.frames.fps
    scenes = _scenes(frames, options)
    for key, classifier in classifiers.items():
        calm = exits.enter_context(_open(classifier.bundle, key, options, spin=False))
        for scene, is_finding in scenes:
            yield CameraLane(
                key.bundle,
                calm,
                Mode(CAMERA, 1),
                scene,
                uri=uri,
                fps=fps,
                finders=open_finders(options.finding, cameras=1) if is_finding else (),
                find=Path(options.finding.find).name if is_finding else None,
                scene=scene.source if options.finding.is_on else "replay",
            )


def _scenes(frames: Frames, options: BenchmarkOptions) -> list[tuple[Frames, bool]]:
    """Return the frames of each row of camera mode, and whether they are searched for things.

    With a finder there is a row without it, and one with it. Where the frames are replayed, those
    are of a rendered garden, because photos in rotation do not move as things do. A third row then
    shows what a still scene costs.
    """
    if not options.finding.is_on:
        return [(frames, False)]
    if options.frames.source:
        return [(frames, False), (frames, True)]
    fps, count = options.frames.fps or FPS, options.frames.images
    busy, still = (garden_frames(birds, count=count, fps=fps) for birds in (BIRDS, 0))
    return [(busy, False), (busy, True), (still, True)]
