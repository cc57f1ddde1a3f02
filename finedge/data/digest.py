"""The sha256 of image files. Files of one digest are one picture, in whatever folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from finedge.bundle import sha256
from finedge.progress import progress_bar
from finedge.regular_files import is_regular

CHUNK_FILES = 1024  # handed to the threads at a time
MAX_CACHED = 1 << 20  # digests in memory


def content_digest(path: Path) -> str:
    """Return the sha256 of an image file; it is read again only when its time or size changes."""
    status = path.stat()
    return _digest(os.fspath(path.absolute()), status.st_mtime_ns, status.st_size, status.st_ino)


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the digest of each file; missing and special files have none."""
    unique = list(dict.fromkeys(paths))
    digests_by_path: dict[Path, str] = {}
    with ThreadPoolExecutor() as pool, progress_bar("hashing images", len(unique)) as advance:
        for start in range(0, len(unique), CHUNK_FILES):
            chunk = unique[start : start + CHUNK_FILES]
            pairs = zip(chunk, pool.map(_digest_or_none, chunk), strict=True)
            digests_by_path |= {path: digest for path, digest in pairs if digest}
            advance(len(chunk))
    return digests_by_path


def _digest_or_none(path: Path) -> str | None:
    try:
        return content_digest(path) if is_regular(path) else None
    except OSError:
        return None


@lru_cache(maxsize=MAX_CACHED)
def _digest(path: str, _mtime_ns: int, _size: int, _inode: int) -> str:
    return sha256(Path(path))
