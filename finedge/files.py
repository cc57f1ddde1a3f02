"""Writing files so that nothing is lost: beside the target, then renamed over it; into folders that were looked at before the work began."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from finedge.errors import SystemProblem


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a full disk or a kill leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes it private
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def replace_folder(new: Path, path: Path) -> None:
    """Rename folder `new` to `path`, removing what was there only after the rename succeeded."""
    new.chmod(0o755)  # mkdtemp makes it private
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def writable_folder(folder: Path, *, option: str) -> Path:
    """Return the folder, made where there is none: so that it is known before minutes or hours of work, not after.

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

    A file without a name is opened in the nearest folder that exists: permissions alone do not tell of a disk that is
    mounted to be read, or of a server that trusts no root.

    Raises:
        SystemProblem: nothing can be written there; the text names the option.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise _not_writable(folder, option, error) from error


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first above it that exists; a name that no file can have raises `OSError`."""
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
