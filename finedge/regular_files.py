"""Opens regular files only: opening a pipe would wait, and opening a device may have effects."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFIFO: "it is a named pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
    stat.S_IFDIR: "it is a folder",
}
# O_NONBLOCK: opening does not wait either if a pipe replaces the file after the check.
FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # some systems lack some of them
    FLAGS |= getattr(os, _name, 0)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: it is missing, may not be read, or is not a regular file; `strerror` has the
            reason.
    """
    try:
        _check(path.stat(), path)
        file = os.fdopen(os.open(path, FLAGS), "rb")
    except ValueError as error:  # a name with a NUL
        raise OSError(errno.EINVAL, f"no file has this name: {error}") from None
    try:
        _check(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def is_regular(path: Path) -> bool:
    """Tell whether a path is a regular file; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises for some names


def read_regular(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`, or the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size} bytes, at most {limit} are read", str(path))
        return file.read(limit)


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "it is not a regular file")
        raise OSError(errno.EINVAL, kind, str(path))
