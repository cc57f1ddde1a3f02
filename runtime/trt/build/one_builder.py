"""One process at a time builds engines of a bundle.

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


@contextmanager
def one_builder(bundle: Path) -> Iterator[None]:
    """Hold the lock of a bundle's folder; wait for as long as another process holds it.

    The folder itself is locked, so that no file is left. A process that ends, also by a kill,
    releases it. Where the file system has no locks, nobody waits.
    """
    handle = _opened(bundle)
    try:
        _wait(handle, bundle)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return None


def _wait(handle: int | None, bundle: Path) -> None:
    if handle is None or fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another process builds an engine of %s: waiting for it", bundle)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        log.debug("%s cannot be locked: %s", bundle, error)
