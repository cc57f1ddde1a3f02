"""One line for each frame, thing or event on stdout, none is dropped: JSON, or text for people."""

from __future__ import annotations

import json
from typing import Any

from finedge import terminal
from finedge.runtime.events.event import Event, EventSink
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink


class JsonLines:
    """Prints each record.

    A slow reader slows the run. Of live sources more frames are then dropped, and counted.
    """

    def write(self, result: Result) -> None:
        """Print the lines of a result.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        for line in result.lines:
            _print(line)

    def close(self) -> None:
        """Do nothing: every line was flushed."""


class EventLines:
    """Prints each event."""

    def write(self, event: Event) -> None:
        """Print one line.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        _print(event.record())

    def close(self) -> None:
        """Do nothing: every line was flushed."""


def _print(record: dict[str, Any]) -> None:
    # One write for each line, so that a signal never leaves half a line.
    print(json.dumps(record) + "\n", end="", flush=True)


def open_lines(outputs: Outputs, context: Context) -> Sink | None:
    """Return the sink that every run has, but one that prints events."""
    if outputs.events:
        return None
    if not terminal.for_people():
        return JsonLines()
    from finedge.runtime.sinks.text_lines import TextLines  # here: a pipe needs no rich

    return TextLines(context)


def open_event_lines() -> EventSink:
    """Return what prints events."""
    if not terminal.for_people():
        return EventLines()
    from finedge.runtime.sinks.text_events import TextEvents  # here: a pipe needs no rich

    return TextEvents()
