"""Writes files atomically: beside the target, then renamed over it.

A symbolic link stays and its target is replaced. Modes obey the umask. Before long work,
`writable_folder` checks the folder.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from finedge.errors import SystemProblem
from finedge.temporary_files import (
    NEW,
    OLD,
    folder_lock,
    hold_new,
    recover,
    release,
    temporary_path,
)

log = logging.getLogger(__name__)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write `data` to `path` atomically: a full disk or a kill leaves the old file.

    The umask cuts `mode`.
    """
    with new_file(path, mode=mode) as file:
        file.write(data)


@contextmanager
def new_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield an open file that replaces `path` if the context succeeds; else it is removed.

    Its `name` is its own path until then. The umask cuts `mode`.
    """
    path = _resolve_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path, once=True)
    new = temporary_path(path, NEW)
    lock = None
    try:
        with folder_lock(
            path.parent
        ):  # without it another process could remove the new file as a leftover
            opened = open(new, "xb", opener=partial(os.open, mode=mode))  # noqa: SIM115
            lock = hold_new(new)
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        release(new, lock)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` if the context succeeds; else it is removed.

    `path` may be a link to a folder, or `.`: its target is replaced.
    """
    path = _resolve_links(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with folder_beside(path) as new:
        yield new
        _replace_folder(new, path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it is removed at the end if it still exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    new = temporary_path(path, NEW)
    lock = None
    try:
        with folder_lock(path.parent):
            new.mkdir()
            lock = hold_new(new)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        release(new, lock)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename folder `new` to `path`, and remove the old one only after the rename succeeded."""
    inner = _working_folder_inside(path)
    old = temporary_path(path, OLD)
    with folder_lock(path.parent):
        if not path.exists():
            new.rename(path)
            return
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
    if inner is not None:
        _enter_new_folder(path / inner, path)
    shutil.rmtree(old, ignore_errors=True)  # a folder that cannot be removed now is a leftover


def _working_folder_inside(path: Path) -> Path | None:
    """Return the working folder of this process relative to `path`, or None if it is outside."""
    try:
        return Path(os.getcwd()).relative_to(path)  # noqa: PTH109 - Path.cwd() is the same call
    except (OSError, ValueError):
        return None


def _enter_new_folder(inner: Path, path: Path) -> None:
    """Change to the new folder, because the old one will be removed."""
    try:
        os.chdir(inner)
    except OSError:
        os.chdir(path)
    log.info(
        "%s was replaced: a shell whose working folder it is sees the new one after `cd .`", path
    )


def _resolve_links(path: Path) -> Path:
    """Return the real path of a file or folder that may not exist yet.

    Raises:
        OSError: the links are circular.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


def writable_folder(folder: Path, *, option: str) -> Path:
    """Create the folder where it is missing and return it.

    Call it before long work: a folder that cannot be written is reported at once.

    Raises:
        SystemProblem: nothing can be written there; the text names the option.
    """
    writable_place(folder, option=option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, option, error) from error
    return folder


def writable_place(folder: Path, *, option: str) -> None:
    """Check that files can be written in `folder`, which need not exist yet; nothing is created.

    An unnamed file is opened in the nearest folder that exists. Permissions alone do not reveal a
    disk that is mounted read-only, or a server that does not trust root.

    Raises:
        SystemProblem: nothing can be written there; the text names the option.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise _not_writable(folder, option, error) from error


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first parent that exists; an invalid name raises `OSError`."""
    for place in (folder, *folder.parents):
        try:
            place.lstat()
        except FileNotFoundError:
            continue
        return place
    return Path()


def _not_writable(folder: Path, option: str, error: OSError) -> SystemProblem:
    what = f"{option}: the folder {folder}: {error.strerror}"
    expected = "a folder that this user can write to"
    return SystemProblem(what, expected=expected, fix="choose another, or chown it")
