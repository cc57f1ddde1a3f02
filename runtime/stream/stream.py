"""Reads a source in a thread: the newest frame of a live source, every frame of any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from finedge.runtime.sources import Frame, Source
from finedge.runtime.sources.base import Interruptible
from finedge.runtime.stream.slot import Slot

NO_SIGNAL_MS = 2000.0
POLL_S = 0.1  # a stop request is noticed after this time at the latest
# How long to wait for the reader's end. One that hangs in a driver, or waits for a server, is left
# running until the process ends.
READER_JOIN_S = 0.3


@dataclass(frozen=True)
class FrameCounts:
    """Frames so far. Once a stream has ended, captured = used + dropped."""

    captured: int
    used: int
    dropped: int


class Stream:
    """Iterates the frames of an open source; None stands for a silence.

    One thread reads the source. A slow consumer gets the newest frame of a live source, and the
    frames it missed are counted. Any other source waits, and gives every frame. The source's error
    is raised after its last frame. A silence is `no_signal_ms` without a frame of a live source.
    Leave the `with` block to stop the reader, and leave it before the source's own.

    Args:
        source: an open source.
        no_signal_ms: a silence of a live source, in ms.
        interval_s: frames that come sooner after the last used one count as dropped. The time is
            that of the source's own clock (`seconds_of`).
        changed: a condition shared with other streams, for a consumer that waits for any of them.
            It then calls `start` and `poll`.

    Examples:
        >>> from finedge.runtime.sources import open_source
        >>> with open_source("test://") as camera, Stream(camera) as stream:
        ...     frame = next(frame for frame in stream if frame is not None)
        >>> frame.image.ndim, frame.image.dtype.name
        (3, 'uint8')
        >>> stream.counts.used >= 1
        True
    """

    def __init__(
        self,
        source: Source,
        *,
        no_signal_ms: float = NO_SIGNAL_MS,
        interval_s: float = 0.0,
        changed: threading.Condition | None = None,
    ) -> None:
        self._source, self._no_signal_s, self._interval_s = source, no_signal_ms / 1e3, interval_s
        self._slot: Slot[Frame] = Slot(every=not source.live, changed=changed)
        self._reported_at = self._slot.put_at
        self._due = -float("inf")
        self._stopping = threading.Event()
        self._join_until = float("inf")
        self._reader = threading.Thread(target=self._read, name="finedge-reader", daemon=True)

    def __iter__(self) -> Iterator[Frame | None]:
        self.start()
        while not self._stopping.is_set():
            self._slot.wait(min(POLL_S, self._no_signal_s))
            if self.ended:
                self.raise_error()
                return
            yield from self.poll()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if self._reader.is_alive():
            self._reader.join(max(0.0, self._join_until - time.monotonic()))

    @property
    def counts(self) -> FrameCounts:
        """The frames captured, used and dropped so far."""
        return FrameCounts(self._slot.captured, self._slot.used, self._slot.dropped)

    @property
    def ready(self) -> bool:
        """Whether there is a frame, or there will be none any more."""
        return self._slot.ready

    @property
    def ended(self) -> bool:
        """Whether every frame was taken and none will follow."""
        return self._slot.ended

    def start(self) -> None:
        """Start the reader."""
        self._reader.start()
        self._reported_at = time.monotonic()

    def poll(self) -> tuple[Frame | None, ...]:
        """Return a new frame, a silence (None), or nothing; it never waits."""
        frame = self._slot.poll()
        if frame is not None:
            return (frame,) if self._is_due(frame) else ()
        if self._source.live and not self._slot.ended and self._is_silent():
            self._reported_at = time.monotonic()
            return (None,)
        return ()

    def raise_error(self) -> None:
        """Raise the source's error, if it has ended with one and its last frame was taken."""
        self._slot.raise_error()

    def stop(self) -> None:
        """End the iteration after the current frame; any thread or signal handler may call it."""
        self._stopping.set()

    def leave(self) -> None:
        """Tell the reader to end, without waiting for it, so that several end at the same time."""
        if self._join_until < float("inf"):
            return
        self.stop()
        self._slot.leave()
        self._join_until = time.monotonic() + READER_JOIN_S
        if isinstance(self._source, Interruptible):
            self._source.close()

    def _is_silent(self) -> bool:
        silent_since = max(self._reported_at, self._slot.put_at)
        return time.monotonic() - silent_since >= self._no_signal_s

    def _is_due(self, frame: Frame) -> bool:
        at = seconds_of(self._source, frame)
        if at is None or not self._interval_s:
            return True
        if at < self._due:
            self._slot.refuse()
            return False
        # The next time counts from when this frame was due. So the mean rate is kept whatever the
        # frame rate is. After a pause it counts from this frame.
        start = self._due if at < self._due + self._interval_s else at
        self._due = start + self._interval_s
        return True

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._source:
                if not self._slot.put(frame) or self._stopping.is_set():
                    return
        except BaseException as raised:
            error = raised
        finally:
            self._slot.close(error)  # in any case: the consumer never waits for a dead reader


def seconds_of(source: Source, frame: Frame) -> float | None:
    """Return the time of a frame on its source's own clock, in s; None for photos.

    That is the capture time of a live frame, and the presentation time in a video. A source that
    says only its rate has a constant one.
    """
    if source.live:
        return frame.captured_ns / 1e9
    if frame.seconds is not None:
        return frame.seconds
    return frame.index / source.info.fps if source.info.fps else None
