"""Fetching, verifying and unpacking archives so that nothing half-done ever looks whole."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import http.client
import logging
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

from finedge.errors import DataError, SystemProblem
from finedge.files import folder_beside, new_file
from finedge.temporary_files import recover
from finedge.train.data.base import Archive
from finedge.train.data.download import CHUNK, download

log = logging.getLogger(__name__)

# What the readers raise; RuntimeError: a password is wanted, or the compression is not known.
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
    """Tell whether what the archive holds is already in `root`, or is not needed there."""
    unpacked = archive.holds != archive.file and (root / archive.holds).exists()
    return unpacked or bool(archive.unless and (root / archive.unless).exists())


def obtain(archive: Archive, *, root: Path, mirror: str = "") -> bool:
    """Bring an archive's content into `root`; return whether its digest was compared.

    A file that lies in `root` already is used, never fetched again; `mirror` replaces the official address by `MIRROR/FILE`.

    Raises:
        DataError: the file does not have the official digest, or does not hold what it should.
        SystemProblem: the address cannot be reached.
    """
    file = root / archive.file
    _clear(file)
    if is_there(archive, root=root):
        return False
    if file.is_file():
        verify(file, digest=archive.digest, fix=f"delete {file} and run again")
    else:
        fetch(
            f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.url,
            file=file,
            digest=archive.digest,
        )
    if archive.holds != archive.file:
        unpack(archive, root=root)
    return bool(archive.digest)


def fetch(url: str, *, file: Path, digest: str = "") -> None:
    """Download `url` to `file`, which appears complete and checked; without a digest, https only.

    torchvision's downloader is not used: where no digest is published, it takes a body that was cut off for a whole one, and
    it falls back from https to http.

    Raises:
        DataError: other bytes than those of the digest.
        SystemProblem: the address cannot be reached, nothing vouches for what it serves, or the
            disk is too small.
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
        fix = f"fetch {file.name} by other means, put it into {file.parent} and run again; or name another address with --mirror URL"
        raise SystemProblem(f"cannot fetch {url}: {error}", fix=fix) from error


def _clear(file: Path) -> None:
    """Remove what killed runs left beside an archive, under the names of version 0.1 too."""
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
        for chunk in iter(partial(stream.read, CHUNK), b""):
            hashed.update(chunk)
    if hashed.hexdigest() != official:
        raise DataError(
            f"{file.name} has {kind} {hashed.hexdigest()}: it is damaged or another file",
            expected=official,
            fix=fix,
        )


def unpack(archive: Archive, *, root: Path) -> None:
    """Unpack into a hidden folder of `root` and rename its entries into place, the one that `holds` names last."""
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
        known_by = PurePosixPath(archive.holds).parts[0]
        for entry in sorted(beside.iterdir(), key=lambda e: (e.name == known_by, e.name)):
            _place(entry, root / entry.name)


def _place(entry: Path, path: Path) -> None:
    """Rename an entry into place; what is there already stays, and must be the same."""
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
    """Tell whether two files, links or folders hold the same."""
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
            with tarfile.open(file) as tar:
                tar.extractall(target, filter="data")
    except DAMAGED as error:
        raise DataError(
            f"{file} cannot be unpacked: {error}",
            expected="a whole archive",
            fix="delete it and run again",
        ) from error


def _extract_zip(file: Path, target: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                raise zipfile.BadZipFile(f"{name} would be written outside the folder")
        archive.extractall(target)
