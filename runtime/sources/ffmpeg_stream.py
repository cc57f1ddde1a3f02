"""A live network stream that FFmpeg reads, as a connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from finedge.errors import SourceLost
from finedge.runtime.machine.packages import load_package
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import CHECK_CAMERA, CapturedFrame, CaptureOptions
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.decoder import Damaged, Decoder, Picture
from finedge.runtime.sources.geometry import scale_and_flip

CATCH_UP_S = 1.0


class FfmpegStream:
    """A connection that reads a live stream, from its newest frame on.

    A picture that is not whole is left out, with those up to the next key frame.

    Args:
        decoder: opened; this class closes it.
        kind: as of `SourceInfo`.
        uri: its address; errors show it without the password.
        transform: the size and flip that are applied here.
        capture_time: (time stamp of the frame in ms, now in ns on the monotonic clock) -> capture
            time in ns.
        timeout_s: the silence after which the connection counts as lost.
    """

    live = True

    def __init__(
        self,
        decoder: Decoder,
        *,
        kind: str,
        uri: str,
        transform: CaptureOptions,
        capture_time: Callable[[float, int], int],
        timeout_s: float,
    ) -> None:
        self._decoder, self._transform, self._capture_time = decoder, transform, capture_time
        self._timeout_s = timeout_s
        self._first: Picture | None = self._newest()
        self.info = decoder.info(self._first, kind=kind, uri=mask(uri))

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed."""
        picture, self._first = self._first or self._next(), None
        if self._decoder.closed:
            return None
        if picture is None:
            raise SourceLost(f"{self.info.uri} delivers no frames any more", fix=CHECK_CAMERA)
        start = time.monotonic_ns()
        captured_ns = self._capture_time(1e3 * picture.seconds, picture.arrival_ns)
        image = scale_and_flip(picture.image, self._transform)
        decode_ms = picture.decode_ms + (time.monotonic_ns() - start) / 1e6
        return CapturedFrame(captured_ns, image, decode_ms)

    def close(self) -> None:
        """Close the connection. Where a read hangs in it, that read closes it at its end."""
        self._decoder.close()

    def _next(self) -> Picture | None:
        """Wait for the next whole picture; None where no more come, or none in time."""
        deadline = Deadline(self._timeout_s)
        while not deadline.passed:
            with suppress(Damaged):
                return self._read()
        return None

    def _read(self) -> Picture | None:
        try:
            return self._decoder.read()
        except load_package("av").FFmpegError:
            return None

    def _newest(self) -> Picture | None:
        """Read the old frames that FFmpeg kept while opening, and return the last.

        A frame is new when it came at least half as long after the frame before as their stamps
        say. A source that is slower than the time-out has given the only frame of this connection
        by then: that one is returned.
        """
        last_s, last_stamp_s, deadline = 0.0, float("inf"), Deadline(CATCH_UP_S)
        last: Picture | None = None
        while (picture := self._next()) is not None:
            now_s = picture.arrival_ns / 1e9
            interval_s = picture.seconds - last_stamp_s
            if deadline.passed or 2 * (now_s - last_s) >= interval_s > 0:
                return picture
            last_s, last_stamp_s, last = now_s, picture.seconds, picture
        return last
