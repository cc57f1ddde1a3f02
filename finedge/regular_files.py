"""Opening what must be a plain file: a pipe would be waited for, and a device may act."""

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
# A pipe that takes the file's place after it was looked at is not waited for either.
FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # each where the system has it
    FLAGS |= getattr(os, _name, 0)


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; links are followed.

    Raises:
        OSError: it is missing, may not be read, or is of another kind; `strerror` has the reason.
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
    """Tell whether a plain file is there; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises for some names


def read_regular(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a plain file of at most `limit` bytes.

    Raises:
        OSError: as of `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size} bytes, at most {limit} are read", str(path))
        return file.read(limit)


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "it is no plain file")
        raise OSError(errno.EINVAL, kind, str(path))
