"""Copying the files of a bundle to a board, by rsync or by tar.

rsync continues an interrupted copy and links the files that did not change. Where it is not
installed on both sides, tar copies all files through ssh.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, cast

from finedge.bundle import MANIFEST, Bundle, sha256
from finedge.errors import BundleError, FinedgeError
from finedge.jetson.deploy import scripts
from finedge.jetson.deploy.remote import NO_CONNECTION, Remote, last_line

# rsync's exit code where the versions do not fit, or where a login prints text into its stream.
PROTOCOL = 2
# rsync's exit codes for sockets, streams and time-outs; the last one is ssh's.
BROKEN_LINK = {10, 12, 30, 35, NO_CONNECTION}
NAME = re.compile(r"\w[\w.-]{0,200}", re.ASCII)
CHECK_DISK = "look at the disk of the board: df -h"

log = logging.getLogger(__name__)

Copy = Callable[..., str]


def copier(*, board_has_rsync: bool) -> Copy:
    """Return `by_rsync` where both sides have rsync, else `by_tar`."""
    return by_rsync if board_has_rsync and shutil.which("rsync") else by_tar


def file_names(bundle: Bundle) -> list[str]:
    """Return the names of the files to copy: the manifest and what it lists.

    Engines and reports of this machine are of no use on the board.
    """
    return [MANIFEST, *bundle.files]


def refuse_unsendable(bundle: Bundle) -> None:
    """Refuse what is not a plain file of the manifest, under its own name in one folder.

    Raises:
        BundleError: a name that is a path or an option, a link, or something that is not a file.
    """
    for name in file_names(bundle):
        path = bundle.path / name
        if not NAME.fullmatch(name):
            raise BundleError(
                f"{bundle.path / MANIFEST} names the file '{name}'",
                expected="plain names of files in the same folder",
                fix="export again",
            )
        if path.is_symlink() or not path.is_file():
            raise BundleError(
                f"{path} is a link or not a file",
                expected="the file itself",
                fix="copy the bundle with `cp -rL` and deploy the copy",
            )


def by_rsync(
    remote: Remote, bundle: Bundle, *, folder: PurePosixPath, live: PurePosixPath | None
) -> str:
    """Copy into `folder`; return a line about what was sent.

    A file whose bytes are those of the version in `live` becomes a hard link to it.

    Raises:
        SystemProblem: the connection broke.
        FinedgeError: rsync failed.
    """
    # Files are compared by content, because bundles are copied about and their times say nothing.
    # Times and permissions are not kept: a difference in them would prevent the link.
    options = ["-s", "--checksum", "--partial", "--stats", "--files-from=-"]
    shell = ["-e", shlex.join(remote.ssh())]
    link = [f"--link-dest={live}"] if live else []
    ends = [f"{bundle.path}/", f"{remote.target.rsync_host}:{folder}/"]
    process = subprocess.run(
        ["rsync", *options, *shell, *link, "--", *ends],
        input="\n".join(file_names(bundle)),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == PROTOCOL:
        log.warning("%s; tar copies instead", last_line(process.stderr))
        return by_tar(remote, bundle, folder=folder, live=live)
    if process.returncode:
        raise _rsync_error(remote, process.returncode, errors=process.stderr)
    count = _number(process.stdout, "regular files transferred")
    size = _number(process.stdout, "transferred file size")
    return f"rsync sent {count} of {len(file_names(bundle))} files, {size / 1e6:.1f} MB"


def _rsync_error(remote: Remote, code: int, *, errors: str) -> FinedgeError:
    # An rsync that dies on the board looks like a broken link here, so the connection is asked.
    if code in BROKEN_LINK and not remote.alive():
        return remote.lost(errors)
    # The first such line is the cause; the last line is its consequence.
    causes = (line for line in errors.splitlines() if line.startswith("rsync: "))
    cause = next(causes, last_line(errors))
    return FinedgeError(f"rsync ended with {code}: {cause}", fix=CHECK_DISK)


def by_tar(
    remote: Remote, bundle: Bundle, *, folder: PurePosixPath, live: PurePosixPath | None
) -> str:
    """Copy all files into `folder` through ssh alone; return a line about what was sent.

    `live` is not used: tar cannot link to files on the board.

    Raises:
        SystemProblem: the connection broke.
        FinedgeError: tar failed on the board.
    """
    del live
    command = remote.command('rm -rf -- "$1" && mkdir -p -- "$1" && tar -xf - -C "$1"', str(folder))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        failed = _pack(bundle, cast("IO[bytes]", process.stdin))
        errors = cast("IO[bytes]", process.stderr).read().decode(errors="replace")
    if process.returncode == NO_CONNECTION:
        raise remote.lost(errors)
    if process.returncode or failed:
        raise FinedgeError(
            f"tar on {remote.target.host} ended with {process.returncode}: {last_line(errors)}",
            fix=CHECK_DISK,
        )
    size = sum((bundle.path / name).stat().st_size for name in file_names(bundle))
    return (
        f"tar sent {len(file_names(bundle))} files, {size / 1e6:.1f} MB "
        "(with rsync on both sides, an interrupted copy could continue)"
    )


def check_digests(remote: Remote, bundle: Bundle, *, folder: PurePosixPath) -> str:
    """Compare every file on the board with what was sent; return a line about it.

    Raises:
        BundleError: bytes differ.
    """
    digests = {MANIFEST: sha256(bundle.path / MANIFEST), **bundle.files}
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    result = remote.run(scripts.DIGEST, str(folder), text=lines)
    if result.code:
        raise BundleError(
            f"{remote.target.host}: {'; '.join(result.out.splitlines())}",
            expected="the bytes that were sent",
            fix="deploy again",
        )
    return f"{len(digests)} files have the bytes that were sent"


def _pack(bundle: Bundle, sink: IO[bytes]) -> bool:
    """Write a tar of the bundle; return whether the other side closed the stream."""
    try:
        with sink, tarfile.open(fileobj=sink, mode="w|") as tar:
            for name in file_names(bundle):
                tar.add(bundle.path / name, arcname=name)
    except BrokenPipeError:
        return True
    return False


def _number(text: str, label: str) -> int:
    match = re.search(rf"{re.escape(label)}: ([\d,.]+)", text, re.IGNORECASE)
    return int(re.sub(r"\D", "", match[1])) if match else 0
