"""`finedge classify`: one JSON line for each frame on stdout, and a summary in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from finedge.bundle import Bundle
from finedge.errors import FinedgeError, UsageError
from finedge.runtime.classifier import Classifier
from finedge.runtime.early_exit.record import log_exits
from finedge.runtime.events.coarser import open_coarser
from finedge.runtime.events.event import Event, EventSink
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import EventSinks, open_event_sinks
from finedge.runtime.events.visits import Coarser
from finedge.runtime.find.options import MOTION, FindOptions, open_finders
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions
from finedge.runtime.serve.share import share_session
from finedge.runtime.sinks import Context, Outputs, Result, Sink, open_sinks
from finedge.runtime.sinks.jsonl import open_event_lines
from finedge.runtime.sources import Source, mask, open_source
from finedge.runtime.sources.base import DEFAULT_CAPTURE, CaptureOptions
from finedge.runtime.stream.decide import MARGIN, Holding, Rules, Smoothing
from finedge.runtime.stream.objects import ObjectResults, ObjectRules
from finedge.runtime.stream.pipeline import Answer, Detections, Output, Pipeline
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.results import Results
from finedge.runtime.stream.shutdown import exit_after_signal, stop_on_signals
from finedge.runtime.stream.stream import NO_SIGNAL_MS
from finedge.runtime.track.track import TrackRule

log = logging.getLogger(__name__)

SourceNames = Annotated[
    tuple[str, ...], arg(metavar="SOURCE [SOURCE ...]", help_behavior_hint="(at least one)")
]

ONLY_STDOUT = Outputs()
FIND_NOTHING = FindOptions()
NO_EVENTS = EventOutputs()
MAX_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class RunLimits:
    """When a run ends and when a line warns.

    Attributes:
        frames: stop after so many frames; without it, at the end of the sources or at Ctrl-C.
        interval: classify at most one frame of a source in so many seconds. 0 is every frame, or
            as many as the machine can.
        stale_ms: a live frame whose answer is older than this, in ms, has status "stale".
        no_signal_ms: a live source that is silent for this long, in ms, gives a line with status
            "no_signal".
        timeout: a stream or pipeline that is silent for this long, in s, is lost and opened again;
            without it 10 (a pipeline: 5).
    """

    frames: int | None = None
    interval: float = 0.0
    stale_ms: float = 1000.0
    no_signal_ms: float = NO_SIGNAL_MS
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames}", expected="at least 1")
        if not (self.stale_ms > 0 and self.no_signal_ms > 0):  # NaN fails both
            raise UsageError(
                f"--stale-ms {self.stale_ms} --no-signal-ms {self.no_signal_ms}",
                expected="positive numbers of milliseconds",
            )
        if self.timeout is not None and not 0 < self.timeout <= MAX_TIMEOUT_S:
            raise UsageError(
                f"--timeout {self.timeout}",
                expected=f"seconds, more than 0, at most {MAX_TIMEOUT_S:g}",
            )
        if not self.interval >= 0:
            raise UsageError(f"--interval {self.interval}", expected="seconds, 0 or more")

    @property
    def source_options(self) -> dict[str, float]:
        """The options that each source is opened with."""
        return {} if self.timeout is None else {"timeout_s": self.timeout}

    @property
    def quiet_s(self) -> float:
        """For how long, in s, a healthy live source may give no line."""
        return max(self.interval, self.no_signal_ms / 1e3)


@dataclass(frozen=True)
class DecisionOptions:
    """How an answer is made of the model's output for one frame after another.

    All rules are off by default: the lines are then what `evaluate` measured. With `smooth` or
    `hold` a line also has "raw_top", the model's output for this frame alone.

    Attributes:
        smooth: average the probabilities over so many seconds, and start again after a scene
            change; 0 is off. For cameras and video.
        hold: keep a label first until another leads it for so many frames in a row; 0 is off.
        hold_margin: by how much in probability it must lead.
        roi: x,y,w,h of the part of the frame that the model sees, in pixels, or in fractions where
            all are at most 1.
    """

    smooth: float = 0.0
    hold: int = 0
    hold_margin: float = MARGIN
    roi: str | None = None

    def rules(self) -> Rules:
        """Return the rules.

        Raises:
            UsageError: a number that no rule can use.
        """
        return Rules(
            Smoothing(self.smooth) if self.smooth else None,
            Holding(self.hold, margin=self.hold_margin) if self.hold else None,
        )

    def region(self) -> Region | None:
        """Return the region of interest.

        Raises:
            UsageError: `roi` is not a region.
        """
        return None if self.roi is None else Region.parse(self.roi)


def classify(
    bundle: Positional[Path],
    sources: Positional[SourceNames],
    *,
    variant: str = "auto",
    backend: str = "auto",
    topk: int = 5,
    early_exit: bool = False,
    look: OmitArgPrefixes[LookOptions] = ONE_LOOK,
    capture: OmitArgPrefixes[CaptureOptions] = DEFAULT_CAPTURE,
    limits: OmitArgPrefixes[RunLimits] = RunLimits(),
    decisions: OmitArgPrefixes[DecisionOptions] = DecisionOptions(),
    finding: OmitArgPrefixes[FindOptions] = FIND_NOTHING,
    outputs: OmitArgPrefixes[Outputs] = ONLY_STDOUT,
    event_outputs: OmitArgPrefixes[EventOutputs] = NO_EVENTS,
) -> None:
    """Classify images, a video, a camera or several.

    Each frame gives one line: JSON in a pipe, and text for people on a terminal. With --find each
    thing in a frame gives one; with --events each visit gives two.

    A camera or test:// gives its newest frame; frames that came too fast are dropped and counted.
    Files give every frame. Frames of several sources go through the model together. The first
    source that is lost ends the run.

    Args:
        bundle: the bundle to run.
        sources: photo.jpg, photos/, 'photos/*.jpg' (in quotes), clip.mp4, /dev/video0 or its
            number, csi://0, rtsp://..., http://..., a GStreamer pipeline that ends in appsink (in
            quotes), test:// (a rendered scene) or 'test://?birds=3' (a scene to find birds in).
        variant: fp32, fp16 or int8; auto is the one that `finedge choose` names.
        backend: a backend, or auto for the first that runs on this machine.
        topk: how many labels a line holds.
        early_exit: run the rest of the model only where no exit is sure; the log ends with the
            share of frames that left at each.
        look: a second look at a part of each frame.
        capture: what a live source is asked for.
        limits: when the run ends and when a line warns.
        decisions: how an answer is made.
        finding: how the things in a frame are found.
        outputs: where results go besides stdout.
        event_outputs: where the starts and ends of visits go besides stdout.
    """
    _check_sources(sources)
    loaded = Bundle.load(bundle)  # before the sources: a swapped order is then named
    rules, region = decisions.rules(), decisions.region()
    finders = open_finders(finding, cameras=len(sources))
    if finding.is_on:
        _refuse_with_finder(decisions, outputs)
    else:
        _refuse_events(outputs, event_outputs)
    with exit_after_signal(), ExitStack() as exits:
        opened = [
            exits.enter_context(open_source(source, capture=capture, **limits.source_options))
            for source in sources
        ]
        _refuse_photos(opened, limits=limits, decisions=decisions, finding=finding)
        classifier = exits.enter_context(
            Classifier.open(
                loaded,
                variant=variant,
                backend=backend,
                topk=topk,
                early_exit=early_exit,
                look=look,
            )
        )
        shared = share_session(classifier) if outputs.serve else classifier
        results = Results(shared, opened, stale_ms=limits.stale_ms, rules=rules, region=region)
        pipeline = Pipeline(
            opened,
            shared,
            no_signal_ms=limits.no_signal_ms,
            interval_s=limits.interval,
            limit=limits.frames,
            region=region,
            finders=finders,
        )
        objects = None
        if finders:
            coarser = open_coarser(loaded, variant=classifier.variant)
            objects = ObjectResults(results, finders, _object_rules(finding, coarser))
        run = Run(pipeline, results, objects)
        interrupted = _run(
            run, outputs=outputs, event_outputs=event_outputs, quiet_s=limits.quiet_s
        )
        log_exits(classifier.session)
    if interrupted:
        raise KeyboardInterrupt


def _check_sources(sources: tuple[str, ...]) -> None:
    if not sources:
        raise UsageError(
            "no source was given",
            expected="finedge classify BUNDLE SOURCE ...: the bundle comes first",
            fix="name a photo, a folder, a video or a camera after the bundle",
        )
    if len(set(sources)) < len(sources):
        raise UsageError(
            f"sources: {' '.join(map(mask, sources))}",
            expected="none twice: a line names its source",
        )


@dataclass(frozen=True)
class Run:
    """What turns sources into results; `objects` is there where a finder runs."""

    pipeline: Pipeline
    results: Results
    objects: ObjectResults | None = None

    def result(self, output: Output) -> Result:
        """Return the result for an output of the pipeline."""
        if self.objects is not None and not isinstance(output, Answer):
            return self.objects(output)
        assert not isinstance(output, Detections)
        return self.results(output)

    def ends(self) -> tuple[Event, ...]:
        """Return the ends of the visits that are open at the end of the run."""
        return () if self.objects is None else self.objects.close()


def _run(run: Run, *, outputs: Outputs, event_outputs: EventOutputs, quiet_s: float) -> bool:
    """Write every result to every sink; return whether a signal ended the run."""
    pipeline, results = run.pipeline, run.results
    context = _context(
        pipeline, results, quiet_s=quiet_s, store=event_outputs.store, page=outputs.serve
    )
    try:
        with (
            # First: the live page shows how they do, and what the store keeps.
            open_event_sinks(event_outputs, context) as events,
            open_sinks(outputs, _with_events(context, events)) as sinks,
            pipeline,
            stop_on_signals(pipeline.stop) as interrupted,
        ):
            lines = [open_event_lines()] if outputs.events else []
            _write_all(run, sinks, events, lines=lines)
    finally:
        log.info(results.summary(pipeline.counts))
    return interrupted.is_set()


def _write_all(
    run: Run, sinks: Sequence[Sink], events: EventSinks, *, lines: Sequence[EventSink]
) -> None:
    """Write every result and event. Open visits end with the run, also when a source is lost."""

    def write(happened: tuple[Event, ...]) -> None:
        for event in happened:
            for sink in (*lines, events):
                sink.write(event)

    try:
        for answer in run.pipeline:
            result = run.result(answer)
            for sink in sinks:
                sink.write(result)
            events.see(result)
            write(result.events)
    except FinedgeError:
        write(run.ends())
        raise
    write(run.ends())


def _context(
    pipeline: Pipeline,
    results: Results,
    *,
    quiet_s: float,
    store: Path | None,
    page: str | None,
) -> Context:
    infos = [source.info for source in results.sources]
    return Context(
        results.classifier.bundle.name,
        names=tuple(info.uri for info in infos),
        fps=tuple(info.fps for info in infos),
        live=any(source.live for source in results.sources),
        stop=pipeline.stop,
        quiet_s=quiet_s,
        classifier=results.classifier,
        store=store,
        page=page,
    )


def _with_events(context: Context, events: EventSinks) -> Context:
    metrics = events.metrics
    return replace(
        context,
        reports=lambda: events.counts,
        metrics=None if metrics is None else metrics.text,
    )


def _object_rules(finding: FindOptions, coarser: Coarser | None) -> ObjectRules:
    return ObjectRules(finding.idle_s, TrackRule(gap_s=finding.visit_gap_s), coarser=coarser)


def _refuse_events(outputs: Outputs, event_outputs: EventOutputs) -> None:
    """Refuse what would wait for events for ever; --metrics counts frames too."""
    asked = {
        "--events": outputs.events or None,
        "--store": event_outputs.store,
        "--mqtt": event_outputs.mqtt,
        "--webhook": event_outputs.webhook,
        "--clips": event_outputs.clips,
    }
    without = [option for option, value in asked.items() if value is not None]
    if without:
        raise UsageError(
            f"{' '.join(without)} without --find", expected="--find motion or MODEL.onnx"
        )


def _refuse_with_finder(decisions: DecisionOptions, outputs: Outputs) -> None:
    """Refuse what a finder takes the place of."""
    if decisions != DecisionOptions():
        raise UsageError(
            "--find with --smooth, --hold or --roi",
            expected="one of them: a track pools the answers of a thing, and --zone takes a part",
        )
    if outputs.collect is not None:
        raise UsageError(
            "--find with --collect", expected="--collect, which keeps whole frames, without --find"
        )


def _refuse_photos(
    sources: Sequence[Source],
    *,
    limits: RunLimits,
    decisions: DecisionOptions,
    finding: FindOptions,
) -> None:
    """Refuse photos where an option counts seconds: there is no time between photos."""
    photos = [s.info.uri for s in sources if not s.live and not s.info.fps]
    if photos and (decisions.smooth or limits.interval):
        raise UsageError(
            f"--smooth {decisions.smooth:g} --interval {limits.interval:g} for {photos[0]}",
            expected="a camera or a video: photos have no time",
        )
    if photos and finding.find == MOTION:
        raise UsageError(
            f"--find motion for {photos[0]}", expected="a camera or a video: photos do not move"
        )
