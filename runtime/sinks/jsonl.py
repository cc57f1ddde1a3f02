"""One JSON line for each result on stdout; no line is dropped."""

from __future__ import annotations

import json

from finedge.runtime.sinks.base import Context, Outputs, Result


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


def open_lines(outputs: Outputs, context: Context) -> JsonLines:
    """Return the sink that every run has."""
    return JsonLines()
