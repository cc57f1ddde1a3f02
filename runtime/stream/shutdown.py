"""How a run ends after a signal, also where a model, a sink or a driver never returns."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

log = logging.getLogger(__name__)

GRACE_S = 4.0  # for the main thread to stop after a signal
# After the signal; files are closed meanwhile. systemd's unit kills after 20 s.
EXIT_AFTER_S = 10.0
INTERRUPTED = 130
ENDING = (signal.SIGINT, signal.SIGTERM)
ALARM = hasattr(signal, "SIGALRM")  # Windows has none


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `stop` at the first SIGINT or SIGTERM; the second one interrupts at once.

    It yields an event that is set once a signal came. A block that has not ended `GRACE_S` after
    the first signal is interrupted too: what hangs in it (a full pipe that nobody reads) never
    asks whether it should stop. It works in the main thread only, where Python delivers signals.
    """
    received = threading.Event()
    previous = {number: signal.getsignal(number) for number in ENDING}
    alarm = signal.signal(signal.SIGALRM, _interrupt) if ALARM else None

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle_first(number: int, frame: FrameType | None) -> None:
        restore()  # before all else: another signal must not enter this function again
        received.set()
        _alarm_in(GRACE_S)
        stop()

    for number in previous:
        signal.signal(number, handle_first)
    try:
        yield received
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


@contextlib.contextmanager
def exit_after_signal() -> Iterator[None]:
    """End the process `EXIT_AFTER_S` after the first SIGINT or SIGTERM, if the block still runs.

    Python runs its handlers only between two steps of the main thread. While a library call hangs,
    they never run, but a thread does. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    ended = threading.Event()
    thread = threading.Thread(
        target=_wait_and_exit, args=(receiver, ended), name="finedge-exit", daemon=True
    )
    thread.start()
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        ended.set()
        sender.close()  # ends `recv`
        thread.join(1.0)
        receiver.close()


def _wait_and_exit(receiver: socket.socket, ended: threading.Event) -> None:
    while numbers := receiver.recv(64):
        if any(number in ENDING for number in numbers):
            if not ended.wait(EXIT_AFTER_S):
                _exit()
            return


def _exit() -> None:
    """Leave without the threads that hang. No file is half-written under its own name."""
    log.error("the run did not end within %g s of the signal: exiting", EXIT_AFTER_S)
    for handler in logging.getLogger("finedge").handlers:
        handler.flush()
    os._exit(INTERRUPTED)
