"""A source that comes back: one connection after the other, and the truth about the time between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from finedge.errors import DataError, FinedgeError, SourceLost
from finedge.runtime.sources.aside import aside
from finedge.runtime.sources.base import Connection, EndOfStream, Frame, Shot

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 0.5  # a server that returns is met again within this and the time of connecting


class Reconnecting:
    """The frames of one connection after the other; while there is none, nothing is yielded.

    A loss, each reason why it lasts, and the return are logged once; `losses` counts. What is not live (a file played by GStreamer) just ends.

    Args:
        connect: opens a connection; its errors are raised here the first time, and mean "not yet" later.
        reconnect: False to raise `SourceLost` at the first loss.
        fps: frames that come sooner than this rate wants are left out.

    Raises:
        SourceLost: the connection broke and `reconnect` is False.
        DataError: what is not live broke.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, reconnect: bool = True, fps: float | None = None
    ) -> None:
        self._connect, self._reconnect, self._period_ns = (
            connect,
            reconnect,
            round(1e9 / fps) if fps else 0,
        )
        self._closed, self._swap = threading.Event(), threading.Lock()
        self._connection = aside(connect, late=lambda connection: connection.close())
        self.live, self.info = self._connection.live, self._connection.info
        self.losses = 0
        self._reasons: set[str] = set()  # reported in this outage

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until closed; `index` goes on over losses."""
        index = due = 0
        while (shot := self._next(index)) is not None:
            if shot.captured_ns < due:
                continue
            yield Frame(index, shot.captured_ns, shot.image, self.info.uri, shot.decode_ms)
            index += 1
            if (
                self._period_ns
            ):  # from when it was due, so that the mean rate is kept; after a pause from now
                due = (
                    due if shot.captured_ns < due + self._period_ns else shot.captured_ns
                ) + self._period_ns

    def __enter__(self) -> Reconnecting:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread for a picture or a return."""
        self._closed.set()
        with self._swap:
            self._connection.close()

    def _next(self, index: int) -> Shot | None:
        try:
            return self._connection.read()
        except EndOfStream:
            lost = SourceLost(
                f"{self.info.uri} was ended by the other side after {index} frames",
                fix="start it again there",
            )
            if not self.live:
                return None
        except SourceLost as error:
            lost = SourceLost(
                f"{error.what} ({index} were read)", expected=error.expected, fix=error.fix
            )
            if not self.live:
                raise DataError(lost.what, expected="a complete video") from error
        if self._closed.is_set():
            return None
        if not self._reconnect:
            raise lost
        return self._regain(lost)

    def _regain(self, lost: SourceLost) -> Shot | None:
        """Return the first picture after a loss, or None when closed meanwhile."""
        self.losses += 1
        since, wait_s = time.monotonic(), FIRST_WAIT_S
        log.warning("%s; trying again until it returns", lost.what)
        self._connection.close()
        self._reasons.clear()
        while not self._closed.wait(wait_s):
            shot = self._try()
            if shot is not None:
                log.warning("%s is back after %.1f s", self.info.uri, time.monotonic() - since)
                return shot
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return None

    def _try(self) -> Shot | None:
        try:
            connection = self._connect()
            with self._swap:  # `close` meets either the old one or this one
                self._connection = connection
                if self._closed.is_set():
                    connection.close()
            shot = connection.read()
        except (FinedgeError, EndOfStream) as error:
            self._tell(str(error) or "it ended at once")
            self._connection.close()
            return None
        return shot

    def _tell(self, reason: str) -> None:
        """Log a reason, at INFO only once: a camera may be back with another password or path."""
        log.log(
            logging.DEBUG if reason in self._reasons else logging.INFO, "not back yet: %s", reason
        )
        self._reasons.add(reason)
