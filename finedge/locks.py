"""Locks of files and folders, held against other processes.

A process that ends, also by a kill, releases its locks. Windows and some file systems have none:
there no process waits for another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def has_locks() -> bool:
    """Tell whether this system has locks: Windows has none."""
    return fcntl is not None


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder; yield False where it is not available."""
    handle = None
    try:
        handle = hold(path)
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def locked_after_wait(path: Path, *, on_wait: Callable[[], object]) -> Iterator[None]:
    """Hold the lock of a file or folder, and wait for it as long as it takes.

    `on_wait` is called once, where another process holds it; what it raises ends the wait. Without
    locks nothing is held.
    """
    try:
        handle = lock(path)
    except BlockingIOError:
        on_wait()
        handle = lock(path, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def hold(path: Path) -> int | None:
    """Return a handle that locks a file or folder until it is closed; None if not available."""
    try:
        return lock(path)
    except BlockingIOError:
        return None


def lock(path: Path, *, wait: bool = False, shared: bool = False) -> int | None:
    """Lock a file or folder; None where its file system has no locks or it cannot be opened.

    Any number of processes have a `shared` lock together, and then none has one of its own.

    Raises:
        BlockingIOError: another process has the lock, and `wait` is false.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, KeyboardInterrupt):
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle
