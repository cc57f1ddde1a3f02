"""`finedge classify`: one JSON line for each frame on stdout, and a summary in the log."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.find.options import FindOptions, open_finders
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions
from finedge.runtime.sinks import Outputs
from finedge.runtime.sources.base import DEFAULT_CAPTURE, CaptureOptions
from finedge.runtime.stream.opening import open_run
from finedge.runtime.stream.options import DecisionOptions, RunLimits
from finedge.runtime.stream.refusals import check_finding, check_sources
from finedge.runtime.stream.run import write_results
from finedge.runtime.stream.shutdown import exit_after_signal

SourceNames = Annotated[
    tuple[str, ...], arg(metavar="SOURCE [SOURCE ...]", help_behavior_hint="(at least one)")
]

NO_LIMITS = RunLimits()
EACH_FRAME = DecisionOptions()
ONLY_STDOUT = Outputs()
FIND_NOTHING = FindOptions()
NO_EVENTS = EventOutputs()


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
    limits: OmitArgPrefixes[RunLimits] = NO_LIMITS,
    decisions: OmitArgPrefixes[DecisionOptions] = EACH_FRAME,
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
    check_sources(sources)
    loaded = Bundle.load(bundle)  # before the sources: a swapped order is then named
    finders = open_finders(finding, cameras=len(sources))
    check_finding(finding, decisions=decisions, outputs=outputs, event_outputs=event_outputs)
    open_classifier = partial(
        Classifier.open,
        loaded,
        variant=variant,
        backend=backend,
        topk=topk,
        early_exit=early_exit,
        look=look,
    )
    with (
        exit_after_signal(),
        open_run(
            sources,
            open_classifier,
            capture=capture,
            limits=limits,
            decisions=decisions,
            finding=finding,
            finders=finders,
            is_shared=outputs.serve is not None,
        ) as run,
    ):
        interrupted = write_results(
            run, outputs=outputs, event_outputs=event_outputs, quiet_s=limits.quiet_s
        )
    if interrupted:
        raise KeyboardInterrupt
