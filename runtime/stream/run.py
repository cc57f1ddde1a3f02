"""The loop of `finedge classify`: results of the pipeline to every sink, until the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from finedge.errors import FinedgeError
from finedge.runtime.events.event import Event, EventSink
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import EventSinks, open_event_sinks
from finedge.runtime.sinks import Context, Outputs, Result, Sink, open_sinks
from finedge.runtime.sinks.collect import open_collect_visits
from finedge.runtime.sinks.jsonl import open_event_lines
from finedge.runtime.stream.objects import ObjectResults
from finedge.runtime.stream.pipeline import Answer, Detections, Output, Pipeline
from finedge.runtime.stream.results import Results
from finedge.runtime.stream.shutdown import stop_on_signals

log = logging.getLogger(__name__)


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


def write_results(
    run: Run, *, outputs: Outputs, event_outputs: EventOutputs, quiet_s: float
) -> bool:
    """Write every result to every sink; return whether a signal ended the run.

    Args:
        run: what gives the results.
        outputs: the sinks of results.
        event_outputs: the sinks of events.
        quiet_s: for how long, in s, a healthy live source may give no line.

    Raises:
        FinedgeError: a source was lost, or a sink cannot be opened or written.
    """
    pipeline, results = run.pipeline, run.results
    context = _context(run, outputs=outputs, event_outputs=event_outputs, quiet_s=quiet_s)
    try:
        with (
            ExitStack() as exits,
            # First: the live page shows how they do, and what the store keeps.
            open_event_sinks(event_outputs, context) as events,
            open_sinks(outputs, _with_events(context, events)) as sinks,
            pipeline,
            stop_on_signals(pipeline.stop) as interrupted,
        ):
            lines: list[EventSink] = [open_event_lines()] if outputs.events else []
            if collector := open_collect_visits(outputs, context):
                exits.callback(collector.close)
                lines.append(collector)
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
            events.write(event)  # it never fails, so a full disk or a closed pipe costs no event
        for event in happened:
            for sink in lines:
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


def _context(run: Run, *, outputs: Outputs, event_outputs: EventOutputs, quiet_s: float) -> Context:
    results = run.results
    infos = [source.info for source in results.sources]
    return Context(
        results.classifier.bundle.name,
        names=tuple(info.uri for info in infos),
        fps=tuple(info.fps for info in infos),
        live=any(source.live for source in results.sources),
        stop=run.pipeline.stop,
        quiet_s=quiet_s,
        classifier=results.classifier,
        store=event_outputs.store,
        page=outputs.serve,
        finds=run.objects is not None,
    )


def _with_events(context: Context, events: EventSinks) -> Context:
    metrics = events.metrics
    return replace(
        context,
        reports=lambda: events.counts,
        metrics=None if metrics is None else metrics.text,
    )
