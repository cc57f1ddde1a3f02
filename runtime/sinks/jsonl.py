"""One line for each result on stdout, none is dropped: JSON, or text where a person reads it."""

from __future__ import annotations

import json

from finedge import terminal
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink


class JsonLines:
    """Prints each record.

    A slow reader slows the run. Of live sources more frames are then dropped, and counted.
    """

    def write(self, result: Result) -> None:
        """Print one line.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        # One write for each line, so that a signal never leaves half a line.
        print(json.dumps(result.record) + "\n", end="", flush=True)

    def close(self) -> None:
        """Do nothing: every line was flushed."""


def open_lines(outputs: Outputs, context: Context) -> Sink:
    """Return the sink that every run has."""
    if not terminal.for_people():
        return JsonLines()
    from finedge.runtime.sinks.text_lines import TextLines  # here: a pipe needs no rich

    return TextLines(context)
