"""A native reader that one thread uses and any thread may release."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLOSE_WAIT_S = 0.1  # a Ctrl-C waits for it


class Guard:
    """Keeps a reader from being released while it reads, which would crash the process.

    Args:
        release: frees the reader; it may be called twice.
    """

    def __init__(self, release: Callable[[], object]) -> None:
        self._release, self._lock = release, threading.Lock()
        self.closed = False

    @contextmanager
    def reading(self) -> Iterator[bool]:
        """Yield whether the reader may be used, and keep `close` from releasing it meanwhile."""
        with self._lock:
            try:
                yield not self.closed
            finally:
                if self.closed:  # `close` was called meanwhile, and did not wait for this read
                    self._release()

    def close(self) -> None:
        """Release the reader. Where a read hangs in it, that read releases it at its end."""
        self.closed = True
        if self._lock.acquire(timeout=CLOSE_WAIT_S):
            self._release()
            self._lock.release()
