"""A slot for one item between two threads: it hands over the newest item, or each in turn."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """Holds one item between a producer and a consumer thread, and the producer's error, if any.

    Args:
        every: `put` waits until the last item was taken. Otherwise it replaces the item, which
            then counts as dropped.
        changed: a condition shared with other slots, for a consumer that waits for any of them.
    """

    def __init__(self, *, every: bool = False, changed: threading.Condition | None = None) -> None:
        self.captured = self.used = self.dropped = 0
        self.put_at = time.monotonic()  # of the last item, in seconds; at first of the slot
        self._every, self._changed = every, changed or threading.Condition()
        self._item: T | None = None
        self._closed = self._left = False
        self._error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether there is an item to take, or none will ever come."""
        return self._item is not None or self._closed

    @property
    def ended(self) -> bool:
        """Whether the producer has ended and every item was taken."""
        return self._closed and self._item is None

    def put(self, item: T) -> bool:
        """Hand an item over; False when the consumer has left."""
        with self._changed:
            self.captured += 1
            if self._every:
                self._changed.wait_for(lambda: self._item is None or self._left)
            if self._left:
                self.dropped += 1
                return False
            self.dropped += self._item is not None
            self._item, self.put_at = item, time.monotonic()
            self._changed.notify_all()
            return True

    def wait_free(self) -> bool:
        """Wait until the last item was taken; False when the consumer has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._left)
            return not self._left

    def close(self, error: BaseException | None) -> None:
        """End the slot: nothing will follow. `error` is what the producer ended with."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the slot is ready, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready, timeout_s)

    def poll(self) -> T | None:
        """Take the item, or None."""
        with self._changed:
            item, self._item = self._item, None
            self.used += item is not None
            self._changed.notify_all()
            return item

    def take(self) -> T | None:
        """Wait for an item and take it; None at the end.

        Raises:
            BaseException: the producer's error, once its last item was taken.
        """
        self.wait()
        item = self.poll()
        if item is None:
            self.raise_error()
        return item

    def raise_error(self) -> None:
        """Raise the producer's error, if it has ended with one and its last item was taken."""
        if self.ended and self._error is not None:
            raise self._error

    def refuse(self) -> None:
        """Count the newest taken item as dropped: nobody will use it."""
        self.used -= 1
        self.dropped += 1

    def leave(self) -> None:
        """Leave as the consumer: nothing will be taken any more; an item left counts as dropped."""
        with self._changed:
            self.dropped += self._item is not None
            self._item, self._left = None, True
            self._changed.notify_all()
