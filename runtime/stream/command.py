"""`finedge classify`: a bundle watches one source or several; one JSON line a frame on stdout, a summary in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from finedge.errors import UsageError
from finedge.runtime.classifier import Classifier
from finedge.runtime.sinks import SINKS, Context, Outputs, Sink
from finedge.runtime.sources import Source, mask, open_source
from finedge.runtime.sources.base import AS_IT_COMES, CaptureOptions
from finedge.runtime.stream.decide import MARGIN, Holding, Rules, Smoothing
from finedge.runtime.stream.pipeline import Pipeline
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.results import Watch
from finedge.runtime.stream.shutdown import leash
from finedge.runtime.stream.stream import NO_SIGNAL_MS, stop_on_signals

log = logging.getLogger(__name__)

ONLY_STDOUT = Outputs()
LONGEST_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Limits:
    """When a run ends and when a line warns.

    Attributes:
        frames: stop after so many frames; without it, at the end of the sources or at Ctrl-C.
        interval: classify at most one frame of a source in so many seconds; 0 is every frame, or as many as the machine can.
        stale_ms: a live frame whose answer is older than this, in ms, has status "stale".
        no_signal_ms: a live source silent for this long, in ms, gives a line with status "no_signal".
        timeout: a stream or pipeline silent for this long, in s, is lost and opened again; without
            it 10 (a pipeline: 5).
    """

    frames: int | None = None
    interval: float = 0.0
    stale_ms: float = 1000.0
    no_signal_ms: float = NO_SIGNAL_MS
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames}", expected="at least 1")
        if not (self.stale_ms > 0 and self.no_signal_ms > 0):  # nan is none
            raise UsageError(
                f"--stale-ms {self.stale_ms} --no-signal-ms {self.no_signal_ms}",
                expected="positive numbers of milliseconds",
            )
        if self.timeout is not None and not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            raise UsageError(
                f"--timeout {self.timeout}",
                expected=f"seconds, more than 0, at most {LONGEST_TIMEOUT_S:g}",
            )
        if not self.interval >= 0:
            raise UsageError(f"--interval {self.interval}", expected="seconds, 0 or more")

    @property
    def of_source(self) -> dict[str, float]:
        """What of these a source is opened with."""
        return {} if self.timeout is None else {"timeout_s": self.timeout}

    @property
    def quiet_s(self) -> float:
        """For how long, in s, a live source in good health may give no line."""
        return max(self.interval, self.no_signal_ms / 1e3)


@dataclass(frozen=True)
class Deciding:
    """How an answer is made of what the model says of one frame after another. All are off: the lines are then what `evaluate` measured.

    With `smooth` or `hold` a line has "raw_top", which is what the model said of this frame alone.

    Attributes:
        smooth: average the probabilities over so many seconds, anew from a scene change on; 0 is off. For cameras and video.
        hold: keep a label first until another leads it for so many frames in a row; 0 is off.
        hold_margin: by how much in probability it must lead.
        roi: x,y,w,h of the part of the frame that the model sees, in pixels, or in fractions where all are at most 1.
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


def classify(
    bundle: Positional[Path],
    sources: Positional[
        Annotated[
            tuple[str, ...], arg(metavar="SOURCE [SOURCE ...]", help_behavior_hint="(at least one)")
        ]
    ],
    *,
    variant: str = "auto",
    backend: str = "auto",
    topk: int = 5,
    wish: OmitArgPrefixes[CaptureOptions] = AS_IT_COMES,
    limits: OmitArgPrefixes[Limits] = Limits(),
    deciding: OmitArgPrefixes[Deciding] = Deciding(),
    outputs: OmitArgPrefixes[Outputs] = ONLY_STDOUT,
) -> None:
    """Classify images, a video, a camera or several; prints one JSON line a frame.

    Of a camera or test:// the newest frame is classified and what came too fast is dropped and counted; of files every frame is.
    Frames of several sources go through the model together. The first source that is lost ends the run.

    Args:
        bundle: the bundle to run.
        sources: photo.jpg, photos/, 'photos/*.jpg' (in quotes), clip.mp4, /dev/video0 or its number, csi://0, rtsp://..., http://...,
            a GStreamer pipeline that ends in appsink (in quotes), or test:// (a rendered scene).
        variant: fp32, fp16 or int8; auto is int8 where the bundle holds it, else fp32.
        backend: a backend, or auto for the first that runs here.
        topk: how many labels a line holds.
        wish: what is asked of a live source.
        limits: when the run ends and when a line warns.
        deciding: how an answer is made.
        outputs: where results go besides stdout.
    """
    if not sources or len(set(sources)) < len(sources):
        raise UsageError(
            f"sources: {' '.join(map(mask, sources)) or 'none'}",
            expected="at least one, and none twice: a line names its source",
        )
    rules, region = (
        deciding.rules(),
        Region.parse(deciding.roi) if deciding.roi is not None else None,
    )
    with leash(), ExitStack() as exits:
        opened = [
            exits.enter_context(open_source(source, wish=wish, **limits.of_source))
            for source in sources
        ]
        _refuse_timeless(opened, limits=limits, deciding=deciding)
        classifier = exits.enter_context(
            Classifier.open(bundle, variant=variant, backend=backend, topk=topk)
        )
        watch = Watch(classifier, opened, stale_ms=limits.stale_ms, rules=rules, region=region)
        pipeline = Pipeline(
            opened,
            classifier,
            no_signal_ms=limits.no_signal_ms,
            interval_s=limits.interval,
            limit=limits.frames,
            region=region,
        )
        interrupted = _run(pipeline, watch, outputs=outputs, quiet_s=limits.quiet_s)
    if interrupted:
        raise KeyboardInterrupt


def _run(pipeline: Pipeline, watch: Watch, *, outputs: Outputs, quiet_s: float) -> bool:
    """Write every result to every sink; return whether a signal ended it."""
    try:
        with (
            _sinks(outputs, _context(watch, pipeline, quiet_s=quiet_s)) as sinks,
            pipeline,
            stop_on_signals(pipeline.stop) as interrupted,
        ):
            for answer in pipeline:
                result = watch(answer)
                for sink in sinks:
                    sink.write(result)
    finally:
        log.info(watch.summary(pipeline.counts))
    return interrupted.is_set()


@contextmanager
def _sinks(outputs: Outputs, context: Context) -> Iterator[list[Sink]]:
    """Open what is asked for; close all of it, whatever happens."""
    with ExitStack() as exits:
        sinks = []
        for open_sink in SINKS.values():
            sink = open_sink(outputs, context)
            if sink is not None:
                exits.callback(sink.close)
                sinks.append(sink)
        yield sinks


def _context(watch: Watch, pipeline: Pipeline, *, quiet_s: float) -> Context:
    infos = [source.info for source in watch.sources]
    return Context(
        watch.classifier.bundle.name,
        names=tuple(info.uri for info in infos),
        fps=tuple(info.fps for info in infos),
        live=any(source.live for source in watch.sources),
        stop=pipeline.stop,
        quiet_s=quiet_s,
    )


def _refuse_timeless(sources: Sequence[Source], *, limits: Limits, deciding: Deciding) -> None:
    """Photos have no time between them: nothing can be averaged over seconds."""
    timeless = [s.info.uri for s in sources if not s.live and not s.info.fps]
    if timeless and (deciding.smooth or limits.interval):
        raise UsageError(
            f"--smooth {deciding.smooth:g} --interval {limits.interval:g} for {timeless[0]}",
            expected="a camera or a video: photos have no time",
        )
