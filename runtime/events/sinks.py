"""The table of all that takes events, and what opens and feeds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from finedge.runtime.events.clips import Clips, open_clips
from finedge.runtime.events.event import Event
from finedge.runtime.events.metrics import Metrics, open_metrics
from finedge.runtime.events.mqtt import open_mqtt
from finedge.runtime.events.notice import Counts, Notice, NoticeSink
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.store import open_store
from finedge.runtime.events.webhook import open_webhook
from finedge.runtime.sinks import Context, Result

__all__ = ["EVENT_SINKS", "EventOutputs", "EventSinks", "OpenEventSink", "open_event_sinks"]


class OpenEventSink(Protocol):
    """Opens a sink, or returns None where the options do not ask for it."""

    def __call__(
        self, outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
    ) -> NoticeSink | None:
        """Open it; `opened` are the sinks before it, whose queues `--metrics` shows."""


EVENT_SINKS: dict[str, OpenEventSink] = {
    "clips": open_clips,
    "store": open_store,
    "mqtt": open_mqtt,
    "webhook": open_webhook,
    "metrics": open_metrics,  # the last: it shows the queues of the others
}


@dataclass(frozen=True)
class EventSinks:
    """All sinks of a run, as one `EventSink` that also sees the results of the stream.

    No call waits for a disk or a network. A crop is encoded once, for all of them.
    """

    sinks: tuple[NoticeSink, ...] = ()

    def see(self, result: Result) -> None:
        """Show a result of the stream to the sinks, before the events that follow from it."""
        for sink in self.sinks:
            sink.see(result)

    def write(self, event: Event) -> None:
        """Give an event to every sink."""
        if not self.sinks:
            return
        notice = Notice.of(replace(event, clip=self._clip_of(event)))
        for sink in self.sinks:
            sink.write(notice)

    def close(self) -> None:
        """End all sinks side by side, in bounded time."""
        with ExitStack() as exits:
            for sink in self.sinks:
                exits.callback(sink.close)
            for sink in self.sinks:
                sink.finish()

    def _clip_of(self, event: Event) -> Path | None:
        clips = next((sink for sink in self.sinks if isinstance(sink, Clips)), None)
        return event.clip if clips is None else clips.clip_of(event)

    @property
    def counts(self) -> dict[str, Counts]:
        """What became of the events, by sink."""
        return {sink.name: sink.counts for sink in self.sinks}

    @property
    def metrics(self) -> Metrics | None:
        """The counts for Prometheus, where there are any."""
        return next((sink for sink in self.sinks if isinstance(sink, Metrics)), None)


@contextmanager
def open_event_sinks(outputs: EventOutputs, context: Context) -> Iterator[EventSinks]:
    """Open the sinks that the options ask for; close all of them, whatever happens.

    Raises:
        UsageError: an option that no sink can use.
        SystemProblem: a file, a folder or an address that cannot be used.
    """
    opened: list[NoticeSink] = []
    try:
        for open_sink in EVENT_SINKS.values():
            sink = open_sink(outputs, context, opened=opened)
            if sink is not None:
                opened.append(sink)
        yield EventSinks(tuple(opened))
    finally:
        EventSinks(tuple(opened)).close()
