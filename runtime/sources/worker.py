"""Native calls run in a worker thread, so that the main thread reacts to Ctrl-C at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Worker(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T], close: Callable[[T], object]) -> None:
        super().__init__(name="finedge-open", daemon=True)
        self._work, self._close = work, close
        self._lock, self._abandoned = threading.Lock(), False
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:
            self.error = error
            return
        with self._lock:
            self.result, abandoned = result, self._abandoned
        if abandoned:
            self._close(result)

    def abandon(self) -> None:
        """Stop waiting. A result that is there, or comes later, is closed."""
        with self._lock:
            self._abandoned, result = True, self.result
        if result is not None:
            self._close(result)


def run_in_worker(work: Callable[[], T], *, close: Callable[[T], object]) -> T:
    """Return what `work` returns, or raise what it raises.

    A signal ends the wait, not the work: `close` then gets the result that nobody waits for any
    more.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    worker = _Worker(work, close)
    worker.start()
    try:
        worker.join()
    except BaseException:
        worker.abandon()
        raise
    if worker.error is not None:
        raise worker.error
    return worker.result  # type: ignore[return-value]
