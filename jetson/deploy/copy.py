"""The files of a bundle onto the board: by rsync, which goes on where it stopped and links what did not change, else by tar."""

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

PROTOCOL = 2  # rsync's exit code where versions do not fit, or a login that says something spoils its stream
BROKEN_LINK = {
    10,
    12,
    30,
    35,
    NO_CONNECTION,
}  # rsync's exit codes for sockets, streams and time-outs; the last one is ssh's

NAME = re.compile(r"\w[\w.-]{0,200}", re.ASCII)

log = logging.getLogger(__name__)

Copy = Callable[..., str]


def copier(*, rsync_there: bool) -> Copy:
    """Return the way to copy that both sides have."""
    return by_rsync if rsync_there and shutil.which("rsync") else by_tar


def file_names(bundle: Bundle) -> list[str]:
    """Return what is copied: the manifest and its files; engines and reports of this machine are of no use there."""
    return [MANIFEST, *bundle.files]


def refuse_unsendable(bundle: Bundle) -> None:
    """Refuse what is not a plain file of the manifest, under its own name in one folder.

    Raises:
        BundleError: a name that is a path or an option, a link, or something that is no file.
    """
    for name in file_names(bundle):
        path = bundle.path / name
        if not NAME.fullmatch(name):
            raise BundleError(
                f"{bundle.path / MANIFEST} names the file '{name}'",
                expected="plain names of files beside it",
                fix="export again",
            )
        if path.is_symlink() or not path.is_file():
            raise BundleError(
                f"{path} is a link or no file",
                expected="the file itself",
                fix="copy the bundle with `cp -rL` and deploy the copy",
            )


def by_rsync(
    remote: Remote, bundle: Bundle, *, folder: PurePosixPath, live: PurePosixPath | None
) -> str:
    """Copy into `folder`; a file whose bytes are those of the live version becomes a hard link to it. Return what was done."""
    # By content, not by time: bundles are copied about. No times or permissions kept: a difference in them would hinder the link.
    options = [
        "-s",
        "--checksum",
        "--partial",
        "--stats",
        "--files-from=-",
        "-e",
        shlex.join(remote.ssh()),
    ]
    link = [f"--link-dest={live}"] if live else []
    command = [
        "rsync",
        *options,
        *link,
        "--",
        f"{bundle.path}/",
        f"{remote.target.rsync_host}:{folder}/",
    ]
    done = subprocess.run(
        command, input="\n".join(file_names(bundle)), capture_output=True, text=True, check=False
    )
    if done.returncode == PROTOCOL:
        log.warning("%s; tar takes over", last_line(done.stderr))
        return by_tar(remote, bundle, folder=folder, live=live)
    if (
        done.returncode in BROKEN_LINK and not remote.alive()
    ):  # an rsync that dies there looks like a broken link here
        raise remote.lost(done.stderr)
    if done.returncode:
        said = next(
            (line for line in done.stderr.splitlines() if line.startswith("rsync: ")),
            last_line(done.stderr),
        )  # the cause, then what came of it
        raise FinedgeError(
            f"rsync ended with {done.returncode}: {said}",
            fix="look at the disk of the board: df -h",
        )
    sent, size = (
        _number(done.stdout, what)
        for what in ("regular files transferred", "transferred file size")
    )
    return f"rsync sent {sent} of {len(file_names(bundle))} files, {size / 1e6:.1f} MB"


def by_tar(
    remote: Remote, bundle: Bundle, *, folder: PurePosixPath, live: PurePosixPath | None
) -> str:
    """Copy all files into `folder` through ssh alone; `live` is of no use here. Return what was done."""
    del live
    command = remote.command('rm -rf -- "$1" && mkdir -p -- "$1" && tar -xf - -C "$1"', str(folder))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        failure = _pack(bundle, cast("IO[bytes]", process.stdin))
        said = cast("IO[bytes]", process.stderr).read().decode(errors="replace")
    if process.returncode == NO_CONNECTION:
        raise remote.lost(said)
    if process.returncode or failure:
        raise FinedgeError(
            f"tar on {remote.target.host} ended with {process.returncode}: {last_line(said)}",
            fix="look at the disk of the board: df -h",
        )
    size = sum((bundle.path / n).stat().st_size for n in file_names(bundle))
    return f"tar sent {len(file_names(bundle))} files, {size / 1e6:.1f} MB (with rsync on both sides it would go on after an interruption)"


def check_digests(remote: Remote, bundle: Bundle, *, folder: PurePosixPath) -> str:
    """Compare every file on the board with what was sent.

    Raises:
        BundleError: bytes differ.
    """
    digests = {MANIFEST: sha256(bundle.path / MANIFEST), **bundle.files}
    done = remote.run(
        scripts.DIGEST,
        str(folder),
        text="".join(f"{digest}  {name}\n" for name, digest in digests.items()),
    )
    if done.code:
        raise BundleError(
            f"{remote.target.host}: {'; '.join(done.out.splitlines())}",
            expected="the bytes that were sent",
            fix="deploy again",
        )
    return f"{len(digests)} files have the bytes that were sent"


def _pack(bundle: Bundle, sink: IO[bytes]) -> bool:
    """Write a tar of the bundle; return whether the other side hung up."""
    try:
        with sink, tarfile.open(fileobj=sink, mode="w|") as tar:
            for name in file_names(bundle):
                tar.add(bundle.path / name, arcname=name)
    except BrokenPipeError:
        return True
    return False


def _number(text: str, what: str) -> int:
    found = re.search(rf"{re.escape(what)}: ([\d,.]+)", text, re.IGNORECASE)
    return int(re.sub(r"\D", "", found[1])) if found else 0
