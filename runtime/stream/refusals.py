"""Options of `finedge classify` that exclude each other, or do not fit the sources."""

from __future__ import annotations

from collections.abc import Sequence

from finedge.errors import UsageError
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.find.options import MOTION, FindOptions
from finedge.runtime.sinks import Outputs
from finedge.runtime.sources import Source, mask
from finedge.runtime.stream.options import DecisionOptions, RunLimits


def check_sources(sources: tuple[str, ...]) -> None:
    """Refuse no source, and one that is named twice.

    Raises:
        UsageError: so it is.
    """
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


def check_finding(
    finding: FindOptions,
    *,
    decisions: DecisionOptions,
    outputs: Outputs,
    event_outputs: EventOutputs,
) -> None:
    """Refuse what a finder takes the place of, and without one what would wait for visits for ever.

    Raises:
        UsageError: so it is.
    """
    if not finding.is_on:
        _refuse_events(outputs, event_outputs)
    elif decisions != DecisionOptions():
        raise UsageError(
            "--find with --smooth, --hold or --roi",
            expected="one of them: a track pools the answers of a thing, and --zone takes a part",
        )


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


def refuse_photos(
    sources: Sequence[Source],
    *,
    limits: RunLimits,
    decisions: DecisionOptions,
    finding: FindOptions,
) -> None:
    """Refuse photos where an option counts seconds: there is no time between photos.

    Raises:
        UsageError: so it is.
    """
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
