"""One process at a time builds engines in a folder.

Two services of a device that start together would both build for minutes, with both builds in
memory. The later one would then replace the engine under the earlier one's feet.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nobody waits there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME = ".building"
# Windows has no O_NOFOLLOW.
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def one_builder(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait for as long as another process holds it.

    A process that ends, also by a kill, releases it. Where the folder cannot be written or its file
    system has no locks, nobody waits.
    """
    handle = _opened(folder / NAME)
    try:
        _wait(handle, folder)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _opened(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, FLAGS, 0o644)
    except OSError:
        return None


def _wait(handle: int | None, folder: Path) -> None:
    if handle is None or fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another process builds an engine in %s: waiting for it", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        log.debug("%s cannot be locked: %s", folder, error)
