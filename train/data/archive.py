"""Download, verify and unpack archives; an unfinished one never looks complete."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import http.client
import logging
import lzma
import math
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from finedge.errors import DataError, SystemProblem
from finedge.files import folder_beside, new_file
from finedge.progress import progress_bar, watched
from finedge.temporary_files import recover
from finedge.train.data.base import Archive
from finedge.train.data.download import CHUNK, download

log = logging.getLogger(__name__)

# The errors of the readers. RuntimeError: a password is needed, or the compression is unknown.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
)


def is_there(archive: Archive, *, root: Path) -> bool:
    """Tell whether the content of the archive is already in `root`, or is not needed there."""
    unpacked = archive.holds != archive.file and (root / archive.holds).exists()
    return unpacked or bool(archive.unless and (root / archive.unless).exists())


def obtain(archive: Archive, *, root: Path, mirror: str = "") -> bool:
    """Bring an archive's content into `root`; return whether its digest was compared.

    A file that is already in `root` is used and never downloaded again. `mirror` replaces the
    official address by `MIRROR/FILE`.

    Raises:
        DataError: the file does not have the official digest, or its content is not the expected
            one.
        SystemProblem: the address cannot be reached.
    """
    file = root / archive.file
    _clear(file)
    if is_there(archive, root=root):
        return False
    if file.is_file():
        verify(file, digest=archive.digest, fix=f"delete {file} and run again")
    else:
        url = f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.url
        fetch(url, file=file, digest=archive.digest)
    if archive.holds != archive.file:
        unpack(archive, root=root)
    return bool(archive.digest)


def fetch(url: str, *, file: Path, digest: str = "") -> None:
    """Download `url` to `file`, which appears complete and checked; without a digest, https only.

    torchvision's downloader is not used. Where no digest is published, it accepts a truncated body
    as complete, and it falls back from https to http.

    Raises:
        DataError: the bytes do not have the digest.
        SystemProblem: the address cannot be reached, its content cannot be trusted, or the disk is
            too small.
    """
    log.info("fetching %s", url)
    elsewhere = f"fetch {file.name} from elsewhere and put it into {file.parent}"
    try:
        with new_file(file) as part:
            download(url, part, any_scheme=bool(digest))
            verify(Path(part.name), digest=digest, fix=f"{url} serves something else: {elsewhere}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise SystemProblem(
            f"cannot fetch {url}: {error}",
            fix=f"fetch {file.name} by other means, put it into {file.parent} and run again; or "
            "name another address with --mirror URL",
        ) from error


def _clear(file: Path) -> None:
    """Remove files that killed runs left beside an archive, also those of version 0.1."""
    recover(file)
    file.with_name(f".{file.name}.part").unlink(missing_ok=True)
    shutil.rmtree(file.with_name(f".{file.name}.unpacking"), ignore_errors=True)


def verify(file: Path, *, digest: str, fix: str) -> None:
    """Compare a file with its official digest `md5:HEX`; an empty digest passes."""
    if not digest:
        return
    kind, _, official = digest.partition(":")
    hashed = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream:
        chunks = iter(partial(stream.read, CHUNK), b"")
        total = math.ceil(file.stat().st_size / CHUNK)
        for chunk in watched(chunks, f"verifying {file.name} (MiB)", total=total):
            hashed.update(chunk)
    if hashed.hexdigest() != official:
        raise DataError(
            f"{file.name} has {kind} {hashed.hexdigest()}: it is damaged, or another file",
            expected=official,
            fix=fix,
        )


def unpack(archive: Archive, *, root: Path) -> None:
    """Unpack into a hidden folder of `root`, then rename its entries into place.

    The entry that `holds` names comes last: it marks the archive as completely unpacked.
    """
    with folder_beside(root / archive.file) as beside:
        target = beside / archive.into
        target.mkdir(parents=True, exist_ok=True)
        _extract(root / archive.file, target)
        for inner in sorted(target.glob("*.tar")) if archive.nested else ():
            _extract(inner, inner.with_suffix(""))
            inner.unlink()
        if not (beside / archive.holds).exists():
            raise DataError(
                f"{archive.file} holds no '{archive.holds}'",
                expected="the official archive",
                fix=f"delete {root / archive.file} and run again",
            )
        last = PurePosixPath(archive.holds).parts[0]
        for entry in sorted(beside.iterdir(), key=lambda e: (e.name == last, e.name)):
            _place(entry, root / entry.name)


def _place(entry: Path, path: Path) -> None:
    """Rename an entry into place; an existing one stays, and must have the same content."""
    if not os.path.lexists(path):
        entry.rename(path)
    elif not _same(entry, path):
        kind = "folder" if path.is_dir() else "file"
        raise DataError(
            f"the {kind} {path} is in the way",
            expected="a folder without it, or with the same content",
            fix="move it away and run again",
        )


def _same(one: Path, other: Path) -> bool:
    """Tell whether two files, links or folders have the same content."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    if one.is_dir() and other.is_dir():
        names = {path.name for path in one.iterdir()}
        return names == {path.name for path in other.iterdir()} and all(
            _same(one / name, other / name) for name in names
        )
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _extract(file: Path, target: Path) -> None:
    """Extract a tar or zip; one that would write outside `target` is refused."""
    log.info("unpacking %s", file.name)
    try:
        if zipfile.is_zipfile(file):
            _extract_zip(file, target)
        else:
            _extract_tar(file, target)
    except DAMAGED as error:
        raise DataError(
            f"{file} cannot be unpacked: {error}",
            expected="a complete archive",
            fix="delete it and run again",
        ) from error


def _extract_tar(file: Path, target: Path) -> None:
    with file.open("rb") as raw, tarfile.open(fileobj=raw) as tar:
        tar.extractall(target, members=_members(tar, raw, name=file.name), filter="data")


def _members(tar: tarfile.TarFile, raw: BinaryIO, *, name: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar; a bar shows how much of the file `raw` was read, in MiB."""
    size, position = os.fstat(raw.fileno()).st_size, 0
    with progress_bar(f"unpacking {name} (MiB)", size // CHUNK) as advance:
        for member in tar:
            yield member
            advance(raw.tell() // CHUNK - position)
            position = raw.tell() // CHUNK


def _extract_zip(file: Path, target: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        for name in names:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if name.startswith(("/", "\\")) or ".." in parts:
                raise zipfile.BadZipFile(f"{name} would be written outside the folder")
        for name in watched(names, f"unpacking {file.name}", total=len(names)):
            archive.extract(name, target)
