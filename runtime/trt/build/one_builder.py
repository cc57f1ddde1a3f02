"""One process at a time builds engines of a bundle.

Two services of a device that start together would both build for minutes, with both builds in
memory. The later one would then replace the engine that the earlier one reads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finedge.locks import locked_after_wait

log = logging.getLogger(__name__)


@contextmanager
def one_builder(bundle: Path) -> Iterator[None]:
    """Hold the lock of a bundle's folder; wait for as long as another process holds it.

    The folder itself is locked, so that no file is left. Where there are no locks, nobody waits.
    """

    def warn() -> None:
        log.warning("another process builds an engine of %s: waiting for it", bundle)

    with locked_after_wait(bundle.resolve(), on_wait=warn):
        yield
