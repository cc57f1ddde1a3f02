"""Writing files so that nothing is lost: beside the target, then renamed over it.

A link stays: its target is replaced. Modes obey the umask. Long work checks its folder first.
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
from finedge.temporary_files import NEW, OLD, beside, hold_new, recover, release, settled

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
    path = _behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path, once=True)
    new = beside(path, NEW)
    lock = None
    try:
        with settled(path.parent):  # or another process takes the new name for a leftover
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
    path = _behind_links(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with folder_beside(path) as new:
        yield new
        _replace_folder(new, path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it is removed at the end if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    new = beside(path, NEW)
    lock = None
    try:
        with settled(path.parent):
            new.mkdir()
            lock = hold_new(new)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        release(new, lock)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename folder `new` to `path`, removing what was there only after the rename succeeded."""
    here = _inside(path)
    old = beside(path, OLD)
    with settled(path.parent):
        if not path.exists():
            new.rename(path)
            return
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
    if here is not None:
        _enter_again(path / here, path)
    shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now is a leftover


def _inside(path: Path) -> Path | None:
    """Return where this process works inside `path`, relative to it, or None."""
    try:
        here = Path(os.getcwd()).relative_to(path)  # noqa: PTH109 - Path.cwd() is the same call
    except (OSError, ValueError):
        return None
    return here


def _enter_again(here: Path, path: Path) -> None:
    """Work in the new folder: the old one is about to go."""
    try:
        os.chdir(here)
    except OSError:
        os.chdir(path)
    log.info("%s was replaced: a shell that stands in it sees the new one after `cd .`", path)


def _behind_links(path: Path) -> Path:
    """Return the real path of a file or folder that may not be there yet.

    Raises:
        OSError: the links go in a circle.
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
    """Make sure that files can be written in `folder`, which need not exist yet; nothing is made.

    A file without a name is opened in the nearest folder that exists: permissions alone do not tell
    of a disk that is mounted to be read, or of a server that trusts no root.

    Raises:
        SystemProblem: nothing can be written there; the text names the option.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise _not_writable(folder, option, error) from error


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first above it that exists; an impossible name raises `OSError`."""
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
