"""The folders of the feature caches: who uses one, how large they are, and which are removed.

Whoever computes maps holds the lock of `lock`, so that two trainings that start at the same time
compute each file once. Whoever uses a cache holds a shared lock of its record until the process
ends, so that nobody removes it. The system drops a lock when its process ends.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from finedge import locks

log = logging.getLogger(__name__)

RECORD = "record.json"
LOCK = "lock"
LIMIT = 8 << 30
"""Bytes of all caches in a folder. Beyond it those that were not used for longest are removed."""
KEY = re.compile("[0-9a-f]{16}")


_held: dict[Path, int | None] = {}  # the records that this process holds, and their handles


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder for computing maps; wait for another training that does.

    On a file system without locks both compute.
    """
    (folder / LOCK).touch()
    said = partial(log.info, "%s: another training computes maps there; waiting for it", folder)
    with locks.locked_after_wait(folder / LOCK, on_wait=said):
        yield


def hold(folder: Path) -> None:
    """Keep others from removing a cache until this process ends, and note that it is used now."""
    key = folder.resolve()
    if key not in _held:
        _held[key] = locks.lock(folder / RECORD, wait=True, shared=True)
    os.utime(folder / RECORD)


def cache_folders(place: Path) -> list[Path]:
    """Return the folders of caches in `place`, the least recently used first."""
    records = [path for path in place.glob(f"*/{RECORD}") if KEY.fullmatch(path.parent.name)]
    return [path.parent for path in sorted(records, key=lambda path: path.stat().st_mtime)]


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def remove_unused(place: Path, *, keep: Path, room: int, limit: int = LIMIT) -> list[Path]:
    """Remove caches in `place` until the rest and `room` more bytes fit `limit`.

    The least recently used go first. `keep` stays, and so does what another process uses.

    Args:
        place: the folder of all caches. Only folders of caches in it are touched.
        keep: the cache that is wanted next.
        room: bytes that will be written into it.
        limit: in bytes.

    Returns:
        The removed folders.
    """
    sizes = {folder: folder_bytes(folder) for folder in cache_folders(place)}
    total, removed = sum(sizes.values()) + room, []
    for folder, size in sizes.items():
        if total <= limit:
            break
        if folder != keep and _remove(folder):
            log.info("removed %s: the feature maps in %s exceed their limit", folder, place)
            total -= size
            removed.append(folder)
    return removed


def _remove(folder: Path) -> bool:
    """Remove a cache; False if a process uses it, if it cannot be removed, or without locks."""
    with locks.locked(folder / RECORD) as unused:
        if not unused:
            return False
        try:
            # The record goes last: without it the rest would not be recognised as a cache.
            for path in [*folder.glob("*.npy"), *folder.glob(".*.npy.new-*"), folder / LOCK]:
                path.unlink(missing_ok=True)
            (folder / RECORD).unlink()
            folder.rmdir()
        except OSError as error:
            log.warning("%s: old feature maps cannot be removed: %s", folder, error)
            return False
    return True
