"""The end of a run after a signal, also where a model, a sink or a driver never returns."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

log = logging.getLogger(__name__)

LAST_S = 10.0  # after the signal: files are closed meanwhile; systemd's unit kills after 20 s
INTERRUPTED = 130
ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def leash() -> Iterator[None]:
    """End the process `LAST_S` after the first SIGINT or SIGTERM, unless the block ends before.

    Python runs its handlers between two steps of the main thread only. While a library call hangs,
    they never run. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    ended = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(receiver, ended),
        name="finedge-leash",
        daemon=True,
    )
    thread.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        sender.close()  # ends `recv`
        thread.join(1.0)
        receiver.close()


def _watch(receiver: socket.socket, ended: threading.Event) -> None:
    while numbers := receiver.recv(64):
        if any(number in ENDING for number in numbers):
            if not ended.wait(LAST_S):
                _leave()
            return


def _leave() -> None:
    """Leave without the threads that hang: no file is half-written under its own name."""
    log.error("the run did not end within %g s of the signal: leaving what hangs", LAST_S)
    for handler in logging.getLogger("finedge").handlers:
        handler.flush()
    os._exit(INTERRUPTED)
