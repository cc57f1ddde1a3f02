"""Web cameras: MJPEG, or a still image that is requested again and again; decoded as files are."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from finedge.errors import FinedgeError, SourceLost
from finedge.image import Unreadable, decode
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import (
    CHECK_CAMERA,
    CapturedFrame,
    CaptureOptions,
    EndOfStream,
    SourceInfo,
    silence,
)
from finedge.runtime.sources.client import HttpResponse, get_body
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.geometry import scale_and_flip
from finedge.runtime.sources.multipart import MAX_IMAGE_BYTES, MultipartParser

log = logging.getLogger(__name__)

POLL_S = 1.0  # between two requests for a still image, where no rate is set


class ImageFeed(Protocol):
    """Where the bytes of images come from."""

    def receive(self) -> list[bytes]:
        """Return the images that came since, oldest first; perhaps none. The wait is bounded.

        Raises:
            OSError, ValueError: the feed broke.
            EndOfStream: the other side ended it.
        """

    def close(self) -> None:
        """End the feed, also for a thread that waits in `receive`."""


class MjpegFeed:
    """The parts of an MJPEG answer."""

    def __init__(self, response: HttpResponse) -> None:
        self._response, self._parser = response, MultipartParser(response.boundary)

    def receive(self) -> list[bytes]:
        """Return the parts that came since."""
        if self._parser.ended:
            raise EndOfStream
        data = self._response.read_some()
        if not data:
            raise ConnectionError("the server hung up")
        return self._parser.feed(data)

    def close(self) -> None:
        """End the connection."""
        self._response.close()


class StillFeed:
    """One image for each request. The first answer is there already.

    Args:
        response: the first answer.
        uri: of the still image.
        period_s: between two requests.
        timeout_s: the longest wait for an answer, and for its body.
    """

    def __init__(
        self, response: HttpResponse, uri: str, *, period_s: float, timeout_s: float
    ) -> None:
        self._first: HttpResponse | None = response
        self._uri, self._period_s, self._timeout_s = uri, period_s, timeout_s
        self._due, self._closed, self._response = time.monotonic(), threading.Event(), response

    def receive(self) -> list[bytes]:
        """Wait until the next request is due, and return its image."""
        response, self._first = self._first, None
        if response is None:
            if self._closed.wait(max(0.0, self._due - time.monotonic())):
                return []
            timeout_s = self._timeout_s
            response = get_body(self._uri, timeout_s=timeout_s, open_timeout_s=timeout_s)
        self._response, self._due = response, max(self._due + self._period_s, time.monotonic())
        try:
            return [response.read_all(max_bytes=MAX_IMAGE_BYTES, timeout_s=self._timeout_s)]
        finally:
            response.close()

    def close(self) -> None:
        """Send no more requests."""
        self._closed.set()
        self._response.close()


class WebCamera:
    """A connection to a feed. It delivers the newest whole image; damaged ones are left out.

    Args:
        feed: of the bytes.
        uri: of the camera.
        transform: the size and flip of the frames.
        timeout_s: the longest time without a readable image.
        open_timeout_s: the same for the first image, if it is longer.

    Raises:
        SourceLost: no readable image came in time. The constructor raises it too.
    """

    live = True

    def __init__(
        self,
        feed: ImageFeed,
        uri: str,
        *,
        transform: CaptureOptions,
        timeout_s: float,
        open_timeout_s: float,
    ) -> None:
        self._feed, self._uri = feed, mask(uri)
        self._transform, self._timeout_s = transform, timeout_s
        self._closed, self._left_out, self._reason = threading.Event(), 0, ""
        try:
            self._first: CapturedFrame | None = self._next(max(timeout_s, open_timeout_s))
        except BaseException:
            self.close()
            raise
        height, width = self._first.image.shape[:2] if self._first is not None else (None, None)
        self.info = SourceInfo("http", self._uri, width=width, height=height)

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed."""
        first, self._first = self._first, None
        return first or self._next(self._timeout_s)

    def close(self) -> None:
        """End the feed, and with it a `read` that waits."""
        self._closed.set()
        self._feed.close()

    def _next(self, timeout_s: float) -> CapturedFrame | None:
        deadline, left_out = Deadline(timeout_s), self._left_out
        while not self._closed.is_set():
            bodies = self._receive()
            arrival_ns = time.monotonic_ns()
            frames = (self._decode(body, arrival_ns) for body in reversed(bodies))
            newest = next((frame for frame in frames if frame is not None), None)
            if newest is not None:
                return newest
            if deadline.passed:
                raise self._silence(timeout_s, damaged=self._left_out - left_out)
        return None

    def _receive(self) -> list[bytes]:
        try:
            return self._feed.receive()
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
                fix=CHECK_CAMERA,
            ) from error

    def _decode(self, body: bytes, arrival_ns: int) -> CapturedFrame | None:
        """Return a frame; None for an image that is not whole. The first of these is a warning."""
        start = time.monotonic_ns()
        try:
            image = scale_and_flip(decode(body).image, self._transform)
        except Unreadable as error:
            self._left_out, self._reason = self._left_out + 1, str(error)
            level = logging.WARNING if self._left_out == 1 else logging.DEBUG
            log.log(level, "%s: a picture %s; such pictures are left out", self._uri, error)
            return None
        return CapturedFrame(arrival_ns, image, (time.monotonic_ns() - start) / 1e6)

    def _silence(self, timeout_s: float, *, damaged: int) -> SourceLost:
        if not damaged:
            return silence(self._uri, timeout_s, fix=CHECK_CAMERA)
        count = f"none of the {damaged} pictures of {timeout_s:g} s can be read"
        return SourceLost(f"{self._uri}: {count}: the last {self._reason}", fix=CHECK_CAMERA)


def feed_of(
    response: HttpResponse, uri: str, *, fps: float | None, timeout_s: float
) -> ImageFeed | None:
    """Return the feed of an answer; None where it is neither MJPEG nor a still image.

    Args:
        response: at its body.
        uri: of the camera.
        fps: the rate of requests for a still image; None: one each `POLL_S`.
        timeout_s: as of `StillFeed`.
    """
    if response.content_type.startswith("multipart/"):
        return MjpegFeed(response)
    if response.content_type.startswith("image/"):
        period_s = 1 / fps if fps else POLL_S
        return StillFeed(response, uri, period_s=period_s, timeout_s=timeout_s)
    return None
