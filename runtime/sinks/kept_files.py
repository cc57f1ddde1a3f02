"""Files that a folder keeps up to a size: the oldest are removed first."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path


class KeptFiles:
    """The files of a folder that one sink writes; other files are neither counted nor touched.

    Several threads may use it.

    Args:
        paths: those of earlier runs. A name begins with its time, so names sort by age.
        max_bytes: the size of all of them together.
    """

    def __init__(self, paths: Iterable[Path], *, max_bytes: float) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: deque[tuple[Path, int]] = deque()
        self._lock = threading.Lock()
        for path in sorted(paths, key=lambda path: path.name):
            self.add(path, path.stat().st_size)
        self.make_room(0)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, the oldest first."""
        return tuple(path for path, _ in self._kept)

    def add(self, path: Path, size: int) -> None:
        """Count a file that was written."""
        with self._lock:
            self._kept.append((path, size))
            self.bytes += size

    def make_room(self, size: int) -> int:
        """Remove the oldest files until `size` bytes more fit; return how many were removed."""
        removed = 0
        with self._lock:
            while self._kept and self.bytes + size > self.max_bytes:
                path, freed = self._kept.popleft()
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it is not empty
                    path.parent.rmdir()  # an empty one would be a class without images
                self.bytes -= freed
                removed += 1
        return removed
