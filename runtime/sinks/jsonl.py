"""One JSON line a result on stdout; never dropped."""

from __future__ import annotations

import json

from finedge.runtime.sinks.base import Context, Outputs, Result


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


def open_lines(outputs: Outputs, context: Context) -> JsonLines:
    """Return the sink that always is."""
    return JsonLines()
