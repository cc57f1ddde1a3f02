"""One line a result on stdout, never dropped: JSON for programs, text on a terminal."""

from __future__ import annotations

import json

from finedge import terminal
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink


class JsonLines:
    """Prints each record; a reader that is slow slows the run, and of live sources more frames are dropped and counted."""

    def write(self, result: Result) -> None:
        """Print one line.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        # One write a line, so that a signal never leaves half of one behind.
        print(json.dumps(result.record) + "\n", end="", flush=True)

    def close(self) -> None:
        """Do nothing: every line was flushed."""


def open_lines(outputs: Outputs, context: Context) -> Sink:
    """Return the sink that always is: JSON lines, or text where a person reads stdout."""
    if not terminal.for_people():
        return JsonLines()
    from finedge.runtime.sinks.text_lines import TextLines  # here: a pipe needs no rich

    return TextLines(context)
