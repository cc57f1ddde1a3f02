"""Pictures that a web server sends one by one, MJPEG or a polled still, decoded as files are."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from finedge.errors import FinedgeError, SourceLost
from finedge.image import Unreadable, decode
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import CaptureOptions, EndOfStream, Shot, SourceInfo
from finedge.runtime.sources.capture import shaped
from finedge.runtime.sources.client import Answer, ask
from finedge.runtime.sources.multipart import MOST_BYTES, Parts

log = logging.getLogger(__name__)

POLL_S = 1.0  # between two questions for a still image, where no rate is asked for
FIX = "check the camera's power and network"


class Feed(Protocol):
    """Where the bytes of pictures come from."""

    def more(self) -> list[bytes]:
        """Return the pictures that came since, oldest first, waiting a bounded time; perhaps none.

        Raises:
            OSError, ValueError: it broke.
            EndOfStream: the other side ended it.
        """

    def close(self) -> None:
        """End it, also for a thread that waits in `more`."""


class Multipart:
    """The parts of an MJPEG answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self._parts = answer, Parts(answer.boundary)

    def more(self) -> list[bytes]:
        """Return the parts that came since."""
        if self._parts.ended:
            raise EndOfStream
        data = self._answer.more()
        if not data:
            raise ConnectionError("the server hung up")
        return self._parts.feed(data)

    def close(self) -> None:
        """End the connection."""
        self._answer.close()


class Stills:
    """One picture a question, the first by an answer that is there already."""

    def __init__(self, answer: Answer, uri: str, *, period_s: float, timeout_s: float) -> None:
        self._answer: Answer | None = answer
        self._uri, self._period_s, self._timeout_s = uri, period_s, timeout_s
        self._due, self._closed, self._asking = time.monotonic(), threading.Event(), answer

    def more(self) -> list[bytes]:
        """Wait until it is time to ask, and return what is answered."""
        answer, self._answer = self._answer, None
        if answer is None:
            if self._closed.wait(max(0.0, self._due - time.monotonic())):
                return []
            answer = ask(self._uri, timeout_s=self._timeout_s, open_timeout_s=self._timeout_s)
        self._asking, self._due = answer, max(self._due + self._period_s, time.monotonic())
        try:
            return [_body(answer, timeout_s=self._timeout_s)]
        finally:
            answer.close()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        self._asking.close()


class Pictures:
    """The connection to a feed: the newest picture that is whole; others are counted and logged.

    Raises:
        SourceLost: at once, no picture that can be read came in `open_timeout_s`.
    """

    live = True

    def __init__(
        self,
        feed: Feed,
        uri: str,
        *,
        wish: CaptureOptions,
        timeout_s: float,
        open_timeout_s: float,
    ) -> None:
        self._feed, self._uri, self._wish, self._timeout_s = feed, mask(uri), wish, timeout_s
        self._closed, self._left_out, self._why = threading.Event(), 0, ""
        try:
            self._first: Shot | None = self._next(max(timeout_s, open_timeout_s))
        except BaseException:
            self.close()
            raise
        height, width = self._first.image.shape[:2] if self._first is not None else (None, None)
        self.info = SourceInfo("http", self._uri, None, width, height, None)

    def read(self) -> Shot | None:
        """Return the next picture; None once closed."""
        first, self._first = self._first, None
        return first or self._next(self._timeout_s)

    def close(self) -> None:
        """End the feed, which also ends a waiting `read`."""
        self._closed.set()
        self._feed.close()

    def _next(self, timeout_s: float) -> Shot | None:
        deadline, before = time.monotonic() + timeout_s, self._left_out
        while not self._closed.is_set():
            bodies = self._more()
            arrived = time.monotonic_ns()
            shots = (self._shot(data, arrived) for data in reversed(bodies))
            newest = next((shot for shot in shots if shot is not None), None)
            if newest is not None:
                return newest
            if time.monotonic() > deadline:
                raise SourceLost(self._silence(timeout_s, bad=self._left_out - before), fix=FIX)
        return None

    def _more(self) -> list[bytes]:
        try:
            return self._feed.more()
        except EndOfStream:
            if self._closed.is_set():
                return []
            raise
        except (FinedgeError, OSError, ValueError) as error:
            if self._closed.is_set():
                return []
            reason = mask(str(error) or type(error).__name__)
            raise SourceLost(
                f"{self._uri} delivers no frames any more: {reason}",
                fix=FIX,
            ) from error

    def _shot(self, data: bytes, arrived: int) -> Shot | None:
        """Return a picture, or None where it is not whole, which is logged once."""
        start = time.monotonic_ns()
        try:
            image = shaped(decode(data).image, self._wish, scale=True)
        except Unreadable as error:
            self._left_out, self._why = self._left_out + 1, str(error)
            level = logging.WARNING if self._left_out == 1 else logging.DEBUG
            log.log(level, "%s: a picture %s; such pictures are left out", self._uri, error)
            return None
        return Shot(arrived, image, (time.monotonic_ns() - start) / 1e6)

    def _silence(self, timeout_s: float, *, bad: int) -> str:
        if bad:
            counted = f"none of the {bad} pictures of {timeout_s:g} s can be read"
            return f"{self._uri}: {counted}: the last {self._why}"
        return f"{self._uri} delivers no frames: none came in {timeout_s:g} s"


def feed_of(answer: Answer, uri: str, *, wish: CaptureOptions, timeout_s: float) -> Feed | None:
    """Return the feed of what an answer holds; None where it is neither MJPEG nor a still image."""
    if answer.kind.startswith("multipart/"):
        return Multipart(answer)
    if answer.kind.startswith("image/"):
        period_s = 1 / wish.fps if wish.fps else POLL_S
        return Stills(answer, uri, period_s=period_s, timeout_s=timeout_s)
    return None


def _body(answer: Answer, *, timeout_s: float) -> bytes:
    """Return all of a still image: up to its length, or to the end of the connection."""
    data, deadline = bytearray(), time.monotonic() + timeout_s
    while (answer.length is None or len(data) < answer.length) and (piece := answer.more()):
        data += piece
        if len(data) > MOST_BYTES or time.monotonic() > deadline:
            raise ValueError(f"its picture has no end: {len(data)} bytes in {timeout_s:g} s")
    return bytes(data)
