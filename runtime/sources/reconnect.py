"""A live source that reconnects: one connection after the other, each outage reported once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from finedge.errors import DataError, FinedgeError, SourceLost
from finedge.runtime.sources.base import CapturedFrame, Connection, EndOfStream, Frame
from finedge.runtime.sources.worker import run_in_worker

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 0.5  # a server that returns is reached within this and the time of connecting


class ReconnectingSource:
    """The frames of one connection after the other. During an outage it yields nothing.

    A loss, each reason why it lasts, and the return are logged once. A source that is not live (a
    file that GStreamer plays) ends with its connection.

    Args:
        connect: opens a connection. The first time its errors are raised here; later they mean
            "not yet".
        reconnect: False to raise `SourceLost` at the first loss.
        fps: the highest rate; frames that come sooner are left out.

    Attributes:
        losses: how often the connection broke.

    Raises:
        SourceLost: the connection broke and `reconnect` is False.
        DataError: a source that is not live broke.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, reconnect: bool = True, fps: float | None = None
    ) -> None:
        self._connect, self._reconnect = connect, reconnect
        self._period_ns = round(1e9 / fps) if fps else 0
        self._closed, self._swap = threading.Event(), threading.Lock()
        self._connection = run_in_worker(connect, close=lambda connection: connection.close())
        self.live, self.info = self._connection.live, self._connection.info
        self.losses = 0
        self._reasons: set[str] = set()  # those that were logged in this outage

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until closed; `index` continues over losses."""
        index = due_ns = 0
        while (frame := self._next(index)) is not None:
            if frame.captured_ns < due_ns:
                continue
            yield Frame(
                index,
                frame.captured_ns,
                frame.image,
                self.info.uri,
                frame.decode_ms,
                frame.seconds,
            )
            index += 1
            # The next one is due a period after this one was due, which keeps the mean rate. After
            # a pause it is due a period after this one came.
            on_time = frame.captured_ns < due_ns + self._period_ns
            due_ns = (due_ns if on_time else frame.captured_ns) + self._period_ns

    def __enter__(self) -> ReconnectingSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread for a frame or a return."""
        self._closed.set()
        with self._swap:
            self._connection.close()

    def _next(self, index: int) -> CapturedFrame | None:
        try:
            return self._connection.read()
        except EndOfStream:
            if not self.live:
                return None
            loss = SourceLost(
                f"{self.info.uri} was ended by the other side after {index} frames",
                fix="start it again there",
            )
        except SourceLost as error:
            what = f"{error.what} ({index} were read)"
            if not self.live:
                raise DataError(what, expected="a complete video") from error
            loss = SourceLost(what, expected=error.expected, fix=error.fix)
        if self._closed.is_set():
            return None
        if not self._reconnect:
            raise loss
        return self._wait_for_return(loss)

    def _wait_for_return(self, loss: SourceLost) -> CapturedFrame | None:
        """Return the first frame after a loss; None when closed meanwhile."""
        self.losses += 1
        start, wait_s = time.monotonic(), FIRST_WAIT_S
        log.warning("%s; trying again until it returns", loss.what)
        self._connection.close()
        self._reasons.clear()
        while not self._closed.wait(wait_s):
            frame = self._try_again()
            if frame is not None:
                log.warning("%s is back after %.1f s", self.info.uri, time.monotonic() - start)
                return frame
            wait_s = min(2 * wait_s, MAX_WAIT_S)
        return None

    def _try_again(self) -> CapturedFrame | None:
        try:
            connection = self._connect()
            with self._swap:  # `close` closes either the old connection or this one
                self._connection = connection
                if self._closed.is_set():
                    connection.close()
            return connection.read()
        except (FinedgeError, EndOfStream) as error:
            self._log_reason(str(error) or "it ended at once")
            self._connection.close()
            return None

    def _log_reason(self, reason: str) -> None:
        """Log a reason at INFO once: the camera may be back with another password or path."""
        level = logging.DEBUG if reason in self._reasons else logging.INFO
        log.log(level, "not back yet: %s", reason)
        self._reasons.add(reason)
