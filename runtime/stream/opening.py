"""Opens what a run of `finedge classify` needs, in the order in which problems are best named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from finedge.runtime.classifier import Classifier
from finedge.runtime.early_exit.record import log_exits
from finedge.runtime.events.coarser import open_coarser
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.find.options import FindOptions
from finedge.runtime.serve.share import share_session
from finedge.runtime.sources import Source, open_source
from finedge.runtime.sources.base import CaptureOptions
from finedge.runtime.stream.objects import ObjectResults, ObjectRules
from finedge.runtime.stream.options import DecisionOptions, RunLimits
from finedge.runtime.stream.pipeline import Pipeline
from finedge.runtime.stream.refusals import refuse_photos
from finedge.runtime.stream.results import Results
from finedge.runtime.stream.run import Run
from finedge.runtime.track.track import TrackRule


@contextmanager
def open_run(
    sources: Sequence[str],
    open_classifier: Callable[[], Classifier],
    *,
    capture: CaptureOptions,
    limits: RunLimits,
    decisions: DecisionOptions,
    finding: FindOptions,
    finders: Sequence[CameraFinder],
    is_shared: bool,
) -> Iterator[Run]:
    """Open the sources, then the classifier; close all of it, and log the early exits at the end.

    Args:
        sources: their addresses.
        open_classifier: is called once the sources are open.
        capture: what a live source is asked for.
        limits: when the run ends.
        decisions: how an answer is made.
        finding: how things are found.
        finders: one for each source, or none.
        is_shared: whether other threads use the classifier too.

    Raises:
        FinedgeError: an option, a source, or a bundle that cannot be used.
    """
    rules, region = decisions.rules(), decisions.region()
    with ExitStack() as exits:
        opened: list[Source] = [
            exits.enter_context(open_source(source, capture=capture, **limits.source_options))
            for source in sources
        ]
        refuse_photos(opened, limits=limits, decisions=decisions, finding=finding)
        classifier = exits.enter_context(open_classifier())
        shared = share_session(classifier) if is_shared else classifier
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
        yield Run(pipeline, results, _objects(results, finders, finding))
        log_exits(classifier.session)


def _objects(
    results: Results, finders: Sequence[CameraFinder], finding: FindOptions
) -> ObjectResults | None:
    if not finders:
        return None
    classifier = results.classifier
    coarser = open_coarser(classifier.bundle, variant=classifier.variant)
    rules = ObjectRules(finding.idle_s, TrackRule(gap_s=finding.visit_gap_s), coarser=coarser)
    return ObjectResults(results, finders, rules)
