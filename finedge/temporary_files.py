"""Temporary names beside a target while it is written, and leftovers of killed processes.

    .NAME.new-xXXXXXXXX   being written. Its process holds a lock (flock) on it; a kill releases it.
    .NAME.old-xXXXXXXXX   the former target. It exists only between two renames, under the lock of
                          the parent folder.

A name without a lock belongs to nobody: it is removed. Where the target is missing, the old one is
put back.
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

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, so nothing is removed either
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NEW, OLD = "new", "old"
PATIENCE_S = 2.0  # a foreign program may lock a folder for hours
LONGEST = 200  # bytes of the target's name in such a name, of the 255 that a file system takes
TEMPORARY_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<role>new-x[0-9a-f]{8}|old-(x[0-9a-f]{8}|[0-9]{1,7}))",
    re.DOTALL,
)
# Version 0.1 named what it wrote so, and an old folder by its process; the new was private until it
# was renamed.
OLD_TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}", re.DOTALL)

_swept: set[Path] = set()
_being_written: set[Path] = set()


def beside(path: Path, role: str) -> Path:
    """Return a free name in the folder of `path`, for a file or folder that is to become it."""
    return path.with_name(f".{_short(path.name)}.{role}-x{secrets.token_hex(4)}")


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder; False where it has none, or another process holds it."""
    handle = None
    try:
        handle = hold(path)
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def settled(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder for a few renames; wait a moment for others that hold it.

    Yields False where there is no lock.
    """
    if folder in _being_written:  # this process holds it
        yield True
        return
    handle = _waited_for(folder)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _waited_for(folder: Path) -> int | None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            return _lock(folder)
        except BlockingIOError:  # noqa: PERF203 - waiting
            time.sleep(0.01)
    return None


def hold(path: Path) -> int | None:
    """Return a handle that locks a file or folder until it is closed.

    None: there is no lock, or another process has it.
    """
    try:
        return _lock(path)
    except BlockingIOError:
        return None


def _lock(path: Path) -> int | None:
    """Lock a file or folder; None where its file system has no locks or it cannot be opened.

    Raises:
        BlockingIOError: another has the lock.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


def hold_new(path: Path) -> int | None:
    """Lock a name that is being written, until `release`."""
    _being_written.add(path)
    return hold(path)


def release(path: Path, handle: int | None) -> None:
    """End what `hold_new` began."""
    _being_written.discard(path)
    if handle is not None:
        os.close(handle)


def recover(path: Path, *, once: bool = False) -> None:
    """Put back what an interrupted replacement of `path` took away, and remove leftovers.

    With `once` the folder is looked at once a process: it may hold 100,000 pictures. What cannot be
    changed here is left.
    """
    path = Path(os.path.realpath(path))
    folder = path.parent
    if fcntl is None or (once and folder in _swept):
        return
    _swept.add(folder)
    with suppress(OSError):
        _recover(folder, path)


def _recover(folder: Path, path: Path) -> None:
    leftovers = [Path(e.path) for e in os.scandir(folder) if e.name.startswith(".")]
    leftovers = [p for p in leftovers if _is_ours(p) or _is_former(p, path)]
    if not leftovers:
        return
    with settled(folder) as alone:
        if not alone:
            return
        old = sorted((p for p in leftovers if _role(p) == OLD and _of(p, path)), key=_changed)
        if old and not os.path.lexists(path):
            old[-1].rename(path)
            log.warning("%s: put back; a replacement of it was interrupted", path)
        for leftover in leftovers:
            _remove(leftover)


def _remove(leftover: Path) -> None:
    """Remove a leftover that no process holds; its target must be there if it is an old one."""
    match = TEMPORARY_NAME.fullmatch(leftover.name)
    if match and _role(leftover) == OLD and not _target_is_there(leftover, match["name"]):
        return
    with locked(leftover) as nobodys:
        if not nobodys:
            return
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
        log.info("%s: removed; it was left by a killed process", leftover)


def _target_is_there(old: Path, name: str) -> bool:
    """Tell whether the replacement of an old name is there; unknown for a name that was cut."""
    return len(name.encode()) < LONGEST and os.path.lexists(old.with_name(name))


def _is_ours(path: Path) -> bool:
    return TEMPORARY_NAME.fullmatch(path.name) is not None and not path.is_symlink()


def _is_former(path: Path, target: Path) -> bool:
    match = OLD_TEMPORARY_NAME.fullmatch(path.name)
    if match is None or match["name"] != target.name or path.is_symlink():
        return False
    status = path.stat()
    return stat.S_IMODE(status.st_mode) & 0o077 == 0 and status.st_uid == os.getuid()


def _role(path: Path) -> str:
    match = TEMPORARY_NAME.fullmatch(path.name)
    return match["role"][:3] if match else NEW


def _of(path: Path, target: Path) -> bool:
    match = TEMPORARY_NAME.fullmatch(path.name)
    return match is not None and match["name"] == _short(target.name)


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:LONGEST])


def _changed(path: Path) -> float:
    return path.stat().st_ctime
