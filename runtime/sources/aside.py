"""Work in native code beside the main thread, which then hears Ctrl-C at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Work(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T], late: Callable[[T], object]) -> None:
        super().__init__(name="finedge-open", daemon=True)
        self._work, self._late = work, late
        self._lock, self._left = threading.Lock(), False
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:
            self.error = error
            return
        with self._lock:
            self.result, left = result, self._left
        if left:
            self._late(result)

    def leave(self) -> None:
        """Go without the result; it is given to `late` when it comes."""
        with self._lock:
            self._left, result = True, self.result
        if result is not None:
            self._late(result)


def aside(work: Callable[[], T], *, late: Callable[[T], object]) -> T:
    """Return what `work` returns, or raise what it raises; a signal ends the wait, not the work.

    `late` gets a result that nobody waits for any more, to close it.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    thread = _Work(work, late)
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.leave()
        raise
    if thread.error is not None:
        raise thread.error
    return thread.result  # type: ignore[return-value]
