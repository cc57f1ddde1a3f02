"""From a source to its consumer: the newest frame of what is live, every frame of what is not."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType

from finedge.runtime.sources import Frame, Source

NO_SIGNAL_MS = 2000.0
POLL_S = 0.1  # how long a stop request may go unseen
JOIN_S = 2.0  # a reader that hangs in a driver is left to the end of the process


@dataclass(frozen=True)
class Counts:
    """Frames so far. Once a stream has ended, captured = used + dropped."""

    captured: int
    used: int
    dropped: int


class Slot:
    """Holds the newest frame of one reader thread, and its last word: the error it ended with, or None."""

    def __init__(self) -> None:
        self.captured = self.used = self.dropped = 0
        self.closed = False
        self._frame: Frame | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Replace the frame; one that was never taken counts as dropped."""
        with self._changed:
            self.captured += 1
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def close(self, error: BaseException | None) -> None:
        """Say that no frame will follow, and why."""
        with self._changed:
            self.closed, self._error = True, error
            self._changed.notify()

    def take(self, timeout_s: float) -> Frame | None:
        """Return the newest frame, or None after `timeout_s` or at the end; an error of the reader is raised once its last frame was taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self.closed, timeout_s)
            frame, self._frame = self._frame, None
            if frame is None and self._error is not None:
                raise self._error
            self.used += frame is not None
            return frame

    def discard(self) -> None:
        """Count a frame that nobody will take as dropped."""
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = None


class Stream:
    """Iterates the frames of an open source; None stands for `no_signal_ms` without a frame (live sources only).

    A live source is read by one thread into a slot of one: a slow consumer gets the newest frame, what it missed is counted. Any other
    source is read in the caller's thread, frame by frame. What the source raises is raised here. Leave the `with` block to stop the reader,
    and leave it before the source's own.
    """

    def __init__(self, source: Source, *, no_signal_ms: float = NO_SIGNAL_MS) -> None:
        self._source, self._no_signal_s = source, no_signal_ms / 1e3
        self._slot, self._stopping = Slot(), threading.Event()
        self._reader = threading.Thread(target=self._read, name="finedge-reader", daemon=True)

    def __iter__(self) -> Iterator[Frame | None]:
        return self._newest() if self._source.live else self._every()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self._reader.is_alive():
            self._reader.join(JOIN_S)
        self._slot.discard()

    @property
    def counts(self) -> Counts:
        """The frames captured, used and dropped so far."""
        return Counts(self._slot.captured, self._slot.used, self._slot.dropped)

    def stop(self) -> None:
        """End the iteration after the frame in hand; safe to call from a signal handler and from any thread."""
        self._stopping.set()

    def _every(self) -> Iterator[Frame]:
        for frame in self._source:
            self._slot.captured += 1
            self._slot.used += 1
            yield frame
            if self._stopping.is_set():
                return

    def _newest(self) -> Iterator[Frame | None]:
        self._reader.start()
        silent_since = time.monotonic()
        while not self._stopping.is_set():
            ended = self._slot.closed  # looked at before taking: a frame put in between is not lost
            frame = self._slot.take(min(POLL_S, self._no_signal_s))
            if frame is None and ended:
                return
            if frame is None and time.monotonic() - silent_since < self._no_signal_s:
                continue
            yield frame
            silent_since = time.monotonic()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._source:
                self._slot.put(frame)
                if self._stopping.is_set():
                    return
        except BaseException as raised:
            error = raised
        finally:
            self._slot.close(error)  # the last word, whatever happened: the consumer never waits for a dead reader


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a call of `stop`, and yield the event that tells so; the second one interrupts at once.

    Only in the main thread, where Python delivers signals.
    """
    seen = threading.Event()
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, frame: FrameType | None) -> None:
        seen.set()
        stop()
        restore()

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    for number in old:
        signal.signal(number, first)
    try:
        yield seen
    finally:
        restore()
