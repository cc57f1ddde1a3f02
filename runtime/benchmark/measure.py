"""Open every variant of some bundles, measure its accuracy, then time all of them interleaved."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from finedge.bundle import Bundle
from finedge.data import EvaluationSplit
from finedge.runtime.backend import SessionOptions, get_backend, usual_variants
from finedge.runtime.benchmark.accuracy import choose
from finedge.runtime.benchmark.camera import CameraLane
from finedge.runtime.benchmark.frames import (
    Frames,
    image_frames,
    labelled_images,
    rendered_frames,
)
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.modes import CAMERA, Mode
from finedge.runtime.benchmark.options import FrameOptions, MeasurementOptions
from finedge.runtime.benchmark.run import interleave
from finedge.runtime.benchmark.schedule import MIN_BLOCKS
from finedge.runtime.classifier import Classifier
from finedge.runtime.early_exit.open import check_segments
from finedge.runtime.evaluate.labelled import SplitOptions
from finedge.runtime.evaluate.predict import Answers, predict
from finedge.runtime.machine.sysfs import UNKNOWN
from finedge.runtime.telemetry.environment import environment
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.choose import Request, is_check_on

log = logging.getLogger(__name__)

EXITS = "+exits"  # of the name of a bundle that is measured with early exits
NO_LABELS = "not measured: no labelled data"
Key = tuple[str, str]  # the bundle's name, the variant
Labelled = Mapping[str, EvaluationSplit | None]  # the images that each bundle is measured on


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured, on which images, with which frames."""

    run: MeasurementOptions
    dataset: SplitOptions
    frames: FrameOptions


@dataclass(frozen=True)
class Measured:
    """Everything that one run produced.

    Attributes:
        bundles: the bundles by name.
        lanes: one for each row.
        environment: the machine, read before the first frame: its load is that of other programs.
        answers: by bundle and variant; empty without labelled data.
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
    bundles = with_exits(bundles) if options.run.early_exit else bundles
    labelled = _labelled(bundles, options.dataset)
    with ExitStack() as exits:
        classifiers = {
            (name, variant): exits.enter_context(
                _open(bundle, variant, options.run, early_exit=name.endswith(EXITS))
            )
            for name, bundle, variant in _variants(bundles, options.run)
        }
        answers, note = _accuracies(classifiers, labelled, limit=options.frames.accuracy_images)
        lanes = _timed(classifiers, _frames(labelled, options), options=options, exits=exits)
    origins = {name: images.record for name, images in labelled.items() if images is not None}
    threads, choices = options.run.threads, _choices(bundles, options.run)
    return Measured(bundles, lanes, machine, answers, note, origins, threads, choices)


def _labelled(bundles: Mapping[str, Bundle], dataset: SplitOptions) -> Labelled:
    """Return the images of each bundle; with early exits, those of the same bundle without."""
    images: dict[str, EvaluationSplit | None] = {}
    for name, bundle in bundles.items():
        whole = name.removesuffix(EXITS)
        images[name] = images[whole] if whole in images else labelled_images(bundle, dataset)
    return images


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
        if not name.endswith(EXITS)
    }
    return {name: Classifier.choose_variant(request) for name, request in requests.items()}


def _variants(
    bundles: Mapping[str, Bundle], run: MeasurementOptions
) -> Iterator[tuple[str, Bundle, str]]:
    """Yield the name, the bundle and each of its variants to measure."""
    backend = get_backend(run.backend)
    for name, bundle in bundles.items():
        for variant in run.chosen_variants or usual_variants(backend, bundle):
            yield name, bundle, variant


def with_exits(bundles: Mapping[str, Bundle]) -> dict[str, Bundle]:
    """Return the bundles, each one with segments twice: the second time as NAME+exits.

    Raises:
        BundleError: none of them has segments.
    """
    cut = {name for name, bundle in bundles.items() if bundle.export.segments.exits}
    if not cut:
        check_segments(next(iter(bundles.values())))
    doubled: dict[str, Bundle] = {}
    for name, bundle in bundles.items():
        doubled |= {name: bundle, f"{name}{EXITS}": bundle} if name in cut else {name: bundle}
    return doubled


def _open(
    bundle: Bundle,
    variant: str,
    run: MeasurementOptions,
    *,
    spin: bool = True,
    early_exit: bool = False,
) -> Classifier:
    return Classifier.open(
        bundle,
        variant=variant,
        backend=run.backend,
        threads=run.threads,
        spin=spin,
        early_exit=early_exit,
    )


def _accuracies(
    classifiers: Mapping[Key, Classifier], labelled: Labelled, *, limit: int | None
) -> tuple[dict[Key, Answers], str]:
    """Return the answers of every variant to its labelled images, and a note on them."""
    answers = {}
    for (name, variant), classifier in classifiers.items():
        images = labelled[name]
        if images is not None:
            log.info("accuracy of %s %s", name, variant)
            answers[name, variant] = predict(classifier, choose(images.items, limit))
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
        BenchmarkLane(name, classifier, mode, frames)
        for mode in modes
        if mode.name != CAMERA
        for (name, _), classifier in classifiers.items()
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
    for (name, variant), classifier in classifiers.items():
        calm = exits.enter_context(
            _open(
                classifier.bundle,
                variant,
                options.run,
                spin=False,
                early_exit=name.endswith(EXITS),
            )
        )
        yield CameraLane(name, calm, Mode(CAMERA, 1), frames, uri=uri, fps=fps)
