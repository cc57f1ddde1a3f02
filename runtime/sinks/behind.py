"""A slow sink behind a short queue: of live sources what does not fit is dropped and counted."""

from __future__ import annotations

import logging
import queue
import threading

from finedge.errors import SystemProblem
from finedge.runtime.sinks.base import Result, Sink

log = logging.getLogger(__name__)

SIZE = 8  # results, each with its frame


class Behind:
    """Feeds `sink` in a thread of its own; what it raises is raised by the next `write`, or by `close`: an OSError as a SystemProblem.

    Args:
        sink: what is slow.
        name: its option, without the dashes.
        drop: a full queue drops the result (live sources); otherwise `write` waits.
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
            log.warning(
                "%s was too slow for %d frames: they are left out", self._name, self.dropped
            )
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (result := self._queue.get()) is not None:
            self._guarded(result)
        self._guarded(None)

    def _guarded(self, result: Result | None) -> None:
        """Write a result, or close for None; after an error only close, so that a waiting `write` is let go."""
        try:
            if result is None:
                self._sink.close()
            elif self._error is None:
                self._sink.write(result)
        except OSError as error:  # a full disk, a card that became read-only
            self._fail(
                SystemProblem(
                    f"--{self._name}: {error}",
                    expected="a folder that can be written, with space left",
                )
            )
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
