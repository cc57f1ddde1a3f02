"""The sha256 of image files: what tells whether two files are one picture, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

CHUNK = 1 << 20
KEPT = 1 << 20  # digests in memory


def content_digest(path: Path) -> str:
    """Return the sha256 of an image file: what overlap between splits is judged by; read once while time and size stay."""
    status = path.stat()
    return _digest(os.fspath(path.absolute()), status.st_mtime_ns, status.st_size, status.st_ino)


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the digest of each file, read in threads; one that is missing or no regular file has none."""
    wanted = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as pool:
        return {path: digest for path, digest in zip(wanted, pool.map(_digest_or_none, wanted), strict=True) if digest}


def _digest_or_none(path: Path) -> str | None:
    try:
        return content_digest(path) if path.is_file() else None
    except OSError:
        return None


@lru_cache(maxsize=KEPT)
def _digest(path: str, _mtime_ns: int, _size: int, _inode: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
