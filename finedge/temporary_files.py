"""Temporary files beside a target that is being written, and what killed processes left.

    .NAME.new-xXXXXXXXX   a file or folder that is being written. Its process holds a lock (flock)
                          on it; a kill releases the lock.
    .NAME.old-xXXXXXXXX   the former target. It exists only between two renames, under the lock of
                          the parent folder.

A temporary file without a lock has no owner and is removed. Where a system has no locks, nothing is
removed. Where the target is missing, the old one is put back.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finedge.locks import has_locks, hold, lock, locked

log = logging.getLogger(__name__)

NEW, OLD = "new", "old"
MAX_WAIT_S = 2.0  # another program may lock a folder for hours
MAX_NAME_BYTES = 200  # of the target's name in a temporary name; file systems allow 255
TEMPORARY_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<role>new-x[0-9a-f]{8}|old-(x[0-9a-f]{8}|[0-9]{1,7}))",
    re.DOTALL,
)
# Version 0.1 used such names, and the number of its process for an old folder. The new file was
# private until it was renamed.
OLD_TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}", re.DOTALL)

_swept: set[Path] = set()
_being_written: set[Path] = set()


def temporary_path(path: Path, role: str) -> Path:
    """Return a free path in the folder of `path`, for the file or folder that will replace it."""
    return path.with_name(f".{_short(path.name)}.{role}-x{secrets.token_hex(4)}")


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder for a few renames; wait up to MAX_WAIT_S for other holders.

    Yields:
        False where the lock is not available.
    """
    if folder in _being_written:  # this process holds it
        yield True
        return
    handle = _lock_with_wait(folder)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _lock_with_wait(folder: Path) -> int | None:
    deadline = time.monotonic() + MAX_WAIT_S
    while time.monotonic() < deadline:
        try:
            return lock(folder)
        except BlockingIOError:  # noqa: PERF203 - waiting
            time.sleep(0.01)
    return None


def hold_new(path: Path) -> int | None:
    """Lock a temporary file that is being written, until `release`."""
    _being_written.add(path)
    return hold(path)


def release(path: Path, handle: int | None) -> None:
    """End what `hold_new` began."""
    _being_written.discard(path)
    if handle is not None:
        os.close(handle)


def recover(path: Path, *, once: bool = False) -> None:
    """Put back what an interrupted replacement of `path` took away, and remove leftovers.

    With `once` each process looks at the folder only once: it may hold 100,000 pictures. Files that
    cannot be changed are left.
    """
    path = Path(os.path.realpath(path))
    folder = path.parent
    if not has_locks() or (once and folder in _swept):
        return
    _swept.add(folder)
    with suppress(OSError):
        _recover(folder, path)


def _recover(folder: Path, path: Path) -> None:
    leftovers = [Path(e.path) for e in os.scandir(folder) if e.name.startswith(".")]
    leftovers = [p for p in leftovers if _is_temporary(p) or _is_old_temporary(p, path)]
    if not leftovers:
        return
    with folder_lock(folder) as has_lock:
        if not has_lock:
            return
        old = sorted(
            (p for p in leftovers if _role(p) == OLD and _belongs_to(p, path)), key=_changed
        )
        if old and not os.path.lexists(path):
            old[-1].rename(path)
            log.warning("%s: put back; its replacement was interrupted", path)
        for leftover in leftovers:
            _remove(leftover)


def _remove(leftover: Path) -> None:
    """Remove a leftover that no process holds. The target of a former target must exist."""
    match = TEMPORARY_NAME.fullmatch(leftover.name)
    if match and _role(leftover) == OLD and not _target_exists(leftover, match["name"]):
        return
    with locked(leftover) as has_lock:
        if not has_lock:
            return
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
        log.info("%s: removed; it was left by a killed process", leftover)


def _target_exists(old: Path, name: str) -> bool:
    """Tell whether the replacement of a former target exists; False for a name that was cut."""
    return len(name.encode()) < MAX_NAME_BYTES and os.path.lexists(old.with_name(name))


def _is_temporary(path: Path) -> bool:
    return TEMPORARY_NAME.fullmatch(path.name) is not None and not path.is_symlink()


def _is_old_temporary(path: Path, target: Path) -> bool:
    match = OLD_TEMPORARY_NAME.fullmatch(path.name)
    if match is None or match["name"] != target.name or path.is_symlink():
        return False
    status = path.stat()
    return stat.S_IMODE(status.st_mode) & 0o077 == 0 and status.st_uid == os.getuid()


def _role(path: Path) -> str:
    match = TEMPORARY_NAME.fullmatch(path.name)
    return match["role"][:3] if match else NEW


def _belongs_to(path: Path, target: Path) -> bool:
    match = TEMPORARY_NAME.fullmatch(path.name)
    return match is not None and match["name"] == _short(target.name)


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:MAX_NAME_BYTES])


def _changed(path: Path) -> float:
    return path.stat().st_ctime
