"""A slow sink in its own thread, after a short queue."""

from __future__ import annotations

import logging
import queue
import threading

from finedge.errors import SystemProblem
from finedge.runtime.sinks.base import Result, Sink

log = logging.getLogger(__name__)

SIZE = 8  # results, each with its frame


class QueuedSink:
    """Writes to `sink` in its own thread.

    An error of the sink is raised by the next `write`, or by `close`. An OSError becomes a
    SystemProblem.

    Args:
        sink: the slow one.
        name: its option, without the dashes.
        drop: a full queue drops and counts the result (live sources); otherwise `write` waits.
    """

    def __init__(self, sink: Sink, *, name: str, drop: bool) -> None:
        self.dropped = 0
        self._sink, self._name, self._drop = sink, name, drop
        self._queue: queue.Queue[Result | None] = queue.Queue(SIZE)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"finedge-{name}", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        """Queue a result."""
        if self._error is not None:
            raise self._error
        try:
            self._queue.put(result, block=not self._drop)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, then close the sink."""
        self._queue.put(None)
        self._thread.join()
        if self.dropped:
            log.warning("%s was too slow for %d frames: they are missing", self._name, self.dropped)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (result := self._queue.get()) is not None:
            self._guarded(result)
        self._guarded(None)

    def _guarded(self, result: Result | None) -> None:
        """Write a result, or close for None.

        After an error nothing is written any more, so that a waiting `write` can go on.
        """
        try:
            if result is None:
                self._sink.close()
            elif self._error is None:
                self._sink.write(result)
        except OSError as error:  # a full disk, a card that became read-only
            expected = "a folder that can be written, with space left"
            self._fail(SystemProblem(f"--{self._name}: {error}", expected=expected))
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
