"""`finedge deploy`: a bundle onto a board, proven there before it serves."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tyro.conf import Positional

from finedge.bundle import MANIFEST, Bundle, sha256
from finedge.errors import FinedgeError, SystemProblem, UsageError, nearest
from finedge.jetson.deploy import scripts
from finedge.jetson.deploy.board import Board, Built, Verified, examine, locked
from finedge.jetson.deploy.copy import check_digests, copier, refuse_unsendable
from finedge.jetson.deploy.remote import Target, connect, last_line
from finedge.jetson.deploy.steps import Journal, Step
from finedge.runtime.trt.build.options import FILES
from finedge.sanitize import printable

ENGINES = ("fp16", "int8")
SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*")


@dataclass(frozen=True)
class Wanted:
    """What shall be on the board in the end.

    It lies in `incoming` until it is proven. The first part of that name, `same_bytes`, tells which interrupted deploys can be continued.
    """

    bundle: Bundle
    version: str
    same_bytes: str
    incoming: str
    path: str
    finedge: str
    service: str
    precisions: tuple[str, ...]
    keep: int
    settle_s: int

    @property
    def folder(self) -> str:
        """The bundle's folder: its name is what the classifier calls it."""
        return f"{self.bundle.name}.finedge"


def deploy(
    board: Positional[str],
    bundle: Positional[Path],
    *,
    port: int | None = None,
    identity: Path | None = None,
    path: str = "~/finedge/bundles",
    service: str = "",
    precision: str = "",
    keep: int = 2,
    finedge: str = "finedge",
    settle_s: int = 10,
) -> dict[str, Any]:
    """Copy a bundle to a board, build and verify it there, and swap it in under the running service; what fails is taken back.

    PATH/current on the board is a link to the version that serves; it changes only once the golden frame has passed there. Exits 3 where
    the board cannot be reached or has no finedge, 4 where bytes differ, 5 where the golden frame fails.

    Args:
        board: user@board, or a host of ~/.ssh/config.
        bundle: the bundle.
        port: ssh's port.
        identity: a private key for ssh.
        path: the folder on the board; a second service has its own.
        service: the systemd unit to restart, and to roll back for if it does not stay up.
        precision: engines to build if TensorRT runs there, e.g. fp16,int8; default: those of the two that the bundle holds.
        keep: how many old versions stay on the board.
        finedge: the command on the board, where it is not on the PATH.
        settle_s: how long the service must stay up, in seconds.
    """
    if keep < 0 or settle_s < 0:
        raise UsageError(f"--keep {keep} --settle-s {settle_s}", expected="numbers from 0")
    if service and not SERVICE.fullmatch(service):
        raise UsageError(f"--service '{service}'", expected="a systemd unit, e.g. finedge")
    if identity is not None and not identity.is_file():
        raise UsageError(f"there is no key {identity}", expected="a private key file")
    for text in (path, finedge, bundle.name):
        if not text or printable(text) != text:
            what = f"'{text}' is empty or holds a character that is not printed"
            raise UsageError(what, expected="printable names")
    target, loaded = Target(board, port, identity), Bundle.load(bundle)
    refuse_unsendable(loaded)
    stamp = sha256(loaded.path / MANIFEST)[:12]  # the manifest holds the digests of all other files
    version = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{stamp}"
    names = version, f".incoming-{stamp}-", f".incoming-{stamp}-{secrets.token_hex(4)}"
    wanted = Wanted(
        loaded, *names, path, finedge, service, _precisions(precision, loaded), keep, settle_s
    )
    journal = Journal(board, version)
    try:
        _deploy(target, wanted, journal=journal)
    except FinedgeError as error:
        raise type(error)(
            error.what, expected=error.expected, fix=error.fix, result=journal.result()
        ) from error
    return journal.result()


def _deploy(target: Target, wanted: Wanted, *, journal: Journal) -> None:
    with contextlib.ExitStack() as stack:
        with journal.step("connect") as note:
            remote = stack.enter_context(connect(target))
            board = examine(
                remote, finedge=wanted.finedge, path=wanted.path, service=wanted.service
            )
            note.detail = f"{board.finedge}, backends: {', '.join(board.runnable)}"
        with journal.step("lock") as note:
            stack.enter_context(locked(board))
            note.detail = str(board.root)
        _stage(board, wanted, journal=journal)
        _activate(board, wanted, journal=journal)
        with journal.step("tidy") as note:
            removed = board.remote.check(scripts.TIDY, str(board.root), str(wanted.keep)).split()
            note.detail = f"removed {', '.join(removed) or 'nothing'}"


def _stage(board: Board, wanted: Wanted, *, journal: Journal) -> None:
    """Copy, check, build and replay beside the version that serves; what fails is removed, after a lost connection it stays to be continued."""
    staged = board.root / wanted.incoming / wanted.folder
    try:
        with journal.step("copy") as note:
            note.detail = _copy(board, wanted, staged=staged)
        with journal.step("digest") as note:
            note.detail = check_digests(board.remote, wanted.bundle, folder=staged)
        with journal.step("build") as note:
            note.detail = _build(board, wanted, staged=staged)
        with journal.step("verify") as note:
            note.detail = _verify(board, wanted, staged=staged)
    except SystemProblem:
        raise
    except FinedgeError:
        board.remote.check(scripts.DISCARD, str(board.root), wanted.incoming)
        journal.rolled_back = True
        raise


def _copy(board: Board, wanted: Wanted, *, staged: PurePosixPath) -> str:
    live = board.remote.check(
        scripts.PREPARE, str(board.root), wanted.incoming, wanted.folder, wanted.same_bytes
    ).strip()
    copy = copier(rsync_there=board.rsync)
    return copy(
        board.remote, wanted.bundle, folder=staged, live=board.root / live if live else None
    )


def _build(board: Board, wanted: Wanted, *, staged: PurePosixPath) -> str:
    if board.tensorrt is None:
        return f"skipped, TensorRT cannot run there ({board.why_no_tensorrt()})"
    if not wanted.precisions:
        return f"skipped, the bundle holds none of {', '.join(ENGINES)}"
    board.remote.check(scripts.ENGINES, str(board.root), f"{wanted.incoming}/{wanted.folder}")
    built = board.run(
        Built,
        "build",
        str(staged),
        "--backend",
        board.tensorrt,
        "--precision",
        ",".join(wanted.precisions),
    )
    return ", ".join(
        f"{name} {record.get('seconds', 0):.0f} s" for name, record in built["precisions"].items()
    )


def _verify(board: Board, wanted: Wanted, *, staged: PurePosixPath) -> str:
    """Replay the golden frame on the backend that will run, which is the first that can, as for `finedge classify`."""
    # Opening a variant without an engine builds one: only those that were asked for.
    built = sorted({n.partition("-")[0] for n in wanted.precisions}) if board.tensorrt else []
    only = ["--variants", ",".join(built)] if built else []
    backend = board.tensorrt or "auto"
    stages = board.run(Verified, "verify", str(staged), "--backend", backend, *only)["stages"]
    return f"{sum(s['pass'] is True for s in stages)} stages pass on {board.tensorrt or 'the CPU'}"


def _activate(board: Board, wanted: Wanted, *, journal: Journal) -> None:
    """Swap, restart, watch, and take back if that fails: one transaction on the board, which ends also if we are cut off."""
    heard: list[Step] = []
    last = time.monotonic()

    def hear(line: str) -> None:
        nonlocal last
        name, outcome, detail = (*line.split("\t", 2), "", "")[:3]
        now = time.monotonic()
        heard.append(Step(name, outcome == "ok", now - last, detail))
        journal.add(heard[-1])
        last = now

    arguments = (
        str(board.root),
        wanted.incoming,
        wanted.version,
        wanted.folder,
        wanted.service,
        str(wanted.settle_s),
    )
    done = board.remote.run(scripts.ACTIVATE, *arguments, heard=hear)
    if done.code:
        journal.rolled_back = all(s.ok for s in heard if s.name == "rollback")
        bad = next((s for s in heard if not s.ok), Step("swap", False, 0.0, last_line(done.err)))
        raise FinedgeError(
            f"{board.remote.target.host}: {bad.name}: {bad.detail}",
            expected="a service that starts and stays up",
            fix=_look_at(wanted.service),
        )


def _look_at(service: str) -> str:
    return (
        f"on the board: journalctl -u {service}" if service else "look at the folder on the board"
    )


def _precisions(names: str, bundle: Bundle) -> tuple[str, ...]:
    if not names:
        return tuple(n for n in ENGINES if FILES[n] in bundle.files)
    wanted = tuple(dict.fromkeys(n.strip() for n in names.split(",")))
    for name in wanted:
        if name not in FILES:
            raise UsageError(f"unknown precision '{name}'", expected=nearest(name, FILES))
        bundle.file(FILES[name])  # raises where the bundle lacks it
    return wanted
