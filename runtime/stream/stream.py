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
from finedge.runtime.sources.base import Interruptible
from finedge.runtime.stream.slot import Slot

NO_SIGNAL_MS = 2000.0
POLL_S = 0.1  # how long a stop request may go unseen
ALARM = hasattr(signal, "SIGALRM")  # Windows has none
GRACE_S = 4.0  # for the main thread to stop after a signal
# A reader that hangs in a driver or waits for a server is left to the end of the process.
READER_JOIN_S = 0.3


@dataclass(frozen=True)
class Counts:
    """Frames so far. Once a stream has ended, captured = used + dropped."""

    captured: int
    used: int
    dropped: int


class Stream:
    """Iterates the frames of an open source; None stands for `no_signal_ms` without a frame (live sources only).

    One thread reads the source. Of a live source a slow consumer gets the newest frame and what it missed is counted; any other source
    waits, and gives every frame. What the source raises is raised here, behind its last frame. Leave the `with` block to stop the
    reader, and leave it before the source's own.

    Args:
        source: an open source.
        no_signal_ms: a silence of a live source, in ms.
        interval_s: frames that come sooner after the last used one count as dropped; by the source's own clock (`seconds`).
        changed: a condition shared with other streams, for a consumer that waits for any of them; it then calls `start` and `poll`.
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
        self._told_at = self._slot.put_at
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
    def counts(self) -> Counts:
        """The frames captured, used and dropped so far."""
        return Counts(self._slot.captured, self._slot.used, self._slot.dropped)

    @property
    def ready(self) -> bool:
        """There is a frame, or there will be none any more."""
        return self._slot.ready

    @property
    def ended(self) -> bool:
        """Every frame was taken and none will follow."""
        return self._slot.ended

    def start(self) -> None:
        """Start the reader."""
        self._reader.start()
        self._told_at = time.monotonic()

    def poll(self) -> tuple[Frame | None, ...]:
        """Return what is new without waiting: a frame, a silence (None), or nothing."""
        frame = self._slot.poll()
        if frame is not None:
            return (frame,) if self._is_due(frame) else ()
        silent_since = max(self._told_at, self._slot.put_at)
        if (
            not self._source.live
            or self._slot.ended
            or time.monotonic() - silent_since < self._no_signal_s
        ):
            return ()
        self._told_at = time.monotonic()
        return (None,)

    def raise_error(self) -> None:
        """Raise what the source ended with, if it did and its last frame was taken."""
        self._slot.raise_error()

    def stop(self) -> None:
        """End the iteration after the frame in hand; safe to call from a signal handler and from any thread."""
        self._stopping.set()

    def leave(self) -> None:
        """Tell the reader to end, without waiting for it: so that several end in the time of one."""
        if self._join_until < float("inf"):
            return
        self.stop()
        self._slot.leave()
        self._join_until = time.monotonic() + READER_JOIN_S
        if isinstance(self._source, Interruptible):
            self._source.close()

    def _is_due(self, frame: Frame) -> bool:
        at = seconds(self._source, frame)
        if at is None or not self._interval_s:
            return True
        if at < self._due:
            self._slot.refuse()
            return False
        # Counted from when it was due, so that the mean rate is kept whatever the frame rate; after a pause from now.
        self._due = (self._due if at < self._due + self._interval_s else at) + self._interval_s
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
            self._slot.close(
                error
            )  # the last word, whatever happened: the consumer never waits for a dead reader


def seconds(source: Source, frame: Frame) -> float | None:
    """Return when a frame was, on its source's own clock: capture of what is live, place in a video; None for photos."""
    if source.live:
        return frame.captured_ns / 1e9
    return frame.index / source.info.fps if source.info.fps else None


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a call of `stop`, and yield the event that tells so; the second one interrupts at once.

    A block that has not ended `GRACE_S` after the first is interrupted too: what hangs in it (a
    reader of our output that does not read) never asks whether it shall stop. Only in the main
    thread, where Python delivers signals.
    """
    seen = threading.Event()
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    alarm = signal.signal(signal.SIGALRM, _interrupt) if ALARM else None

    def first(number: int, frame: FrameType | None) -> None:
        restore()  # first: another signal may come while this runs, and must not enter it again
        seen.set()
        _alarm_in(GRACE_S)
        stop()

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    for number in old:
        signal.signal(number, first)
    try:
        yield seen
    finally:
        _alarm_in(0)
        if ALARM:
            signal.signal(signal.SIGALRM, alarm)
        restore()


def _alarm_in(seconds: float) -> None:
    if ALARM:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
