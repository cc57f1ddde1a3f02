"""`finedge deploy`: copy a bundle to a board, and verify it there before it serves."""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import MANIFEST, Bundle, sha256
from finedge.errors import FinedgeError, SystemProblem
from finedge.jetson.deploy import scripts
from finedge.jetson.deploy.board import (
    Board,
    BuildAnswer,
    ChoiceAnswer,
    VerifyAnswer,
    examine,
    locked,
)
from finedge.jetson.deploy.copy import check_digests, copier, refuse_unsendable
from finedge.jetson.deploy.options import (
    Installation,
    Login,
    ServiceRestart,
    check_printable,
)
from finedge.jetson.deploy.remote import SshTarget, connect, last_line
from finedge.jetson.deploy.steps import DeployStep, Journal
from finedge.options import comma_list
from finedge.progress import progress_bar
from finedge.runtime.trt.build.options import FILES

ENGINES = ("fp16", "int8")
UNKNOWN_COMMAND = "unknown command 'choose'"  # what an older finedge answers
DEFAULT_LOGIN = Login()
DEFAULT_INSTALLATION = Installation()
NO_RESTART = ServiceRestart()


@dataclass(frozen=True)
class Deployment:
    """A bundle and how the board is to serve it.

    Attributes:
        bundle: the bundle here.
        precisions: the engines to build, where TensorRT can run on the board.
        version: the name of its folder in `versions`: the time in UTC and the manifest's digest.
        incoming: the name of the folder where it lies until it passes its golden frame.
        same_bytes: the first part of `incoming`; interrupted deployments with it can continue.
        installation: what is where on the board.
        restart: the service to restart.
    """

    bundle: Bundle
    precisions: tuple[str, ...]
    version: str
    incoming: str
    same_bytes: str
    installation: Installation
    restart: ServiceRestart

    @property
    def folder(self) -> str:
        """The name of the bundle's folder, which the classifier shows as the bundle's name."""
        return f"{self.bundle.name}.finedge"


def deploy(
    board: Positional[str],
    bundle: Positional[Path],
    *,
    precision: str = "",
    login: OmitArgPrefixes[Login] = DEFAULT_LOGIN,
    installation: OmitArgPrefixes[Installation] = DEFAULT_INSTALLATION,
    restart: OmitArgPrefixes[ServiceRestart] = NO_RESTART,
) -> dict[str, Any]:
    """Copy a bundle to a board, build its engines and verify it there, then let it serve.

    The board also times the variants, and notes which one `--variant auto` runs.

    PATH/current on the board is a link to the version that serves. It changes only after the golden
    frame passed on the board. If the service then fails, the old version comes back.

    Exits 3 where the board cannot be reached or has no finedge, 4 where bytes differ, and 5 where
    the golden frame fails.

    Args:
        board: user@board, or a host of ~/.ssh/config.
        bundle: the bundle.
        precision: engines to build where TensorRT can run, e.g. fp16,int8; by default those of the
            two that the bundle holds.
        login: how ssh logs in.
        installation: what is where on the board.
        restart: the service to restart.
    """
    target = SshTarget(board, login.port, login.identity)
    check_printable(bundle.name)
    source = Bundle.load(bundle)
    refuse_unsendable(source)
    deployment = _deployment(source, precision, installation=installation, restart=restart)
    journal = Journal(board, deployment.version)
    try:
        _deploy(target, deployment, journal=journal)
    except FinedgeError as error:
        raise type(error)(
            error.what, expected=error.expected, fix=error.fix, result=journal.result()
        ) from error
    return journal.result()


def _deployment(
    bundle: Bundle, precision: str, *, installation: Installation, restart: ServiceRestart
) -> Deployment:
    stamp = sha256(bundle.path / MANIFEST)[:12]  # the manifest holds the digests of all other files
    return Deployment(
        bundle,
        _precisions(precision, bundle),
        version=f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{stamp}",
        incoming=f".incoming-{stamp}-{secrets.token_hex(4)}",
        same_bytes=f".incoming-{stamp}-",
        installation=installation,
        restart=restart,
    )


def _deploy(target: SshTarget, deployment: Deployment, *, journal: Journal) -> None:
    installation, service = deployment.installation, deployment.restart.service
    with contextlib.ExitStack() as stack:
        with journal.step("connect") as detail:
            remote = stack.enter_context(connect(target))
            board = examine(
                remote, finedge=installation.finedge, path=installation.path, service=service
            )
            detail.text = f"{board.finedge}, backends: {', '.join(board.runnable)}"
        with journal.step("lock") as detail:
            stack.enter_context(locked(board))
            detail.text = str(board.root)
        _stage(board, deployment, journal=journal)
        _activate(board, deployment, journal=journal)
        with journal.step("tidy") as detail:
            removed = remote.check(scripts.TIDY, str(board.root), str(installation.keep)).split()
            detail.text = f"removed {', '.join(removed) or 'nothing'}"


def _stage(board: Board, deployment: Deployment, *, journal: Journal) -> None:
    """Copy, check, build, verify and choose beside the version that serves.

    After a failure the copy is removed. After a lost connection it stays, and the next deployment
    continues it.
    """
    staged = board.root / deployment.incoming / deployment.folder
    try:
        with journal.step("copy") as detail:
            detail.text = _copy(board, deployment, staged=staged)
        with journal.step("digest") as detail:
            detail.text = check_digests(board.remote, deployment.bundle, folder=staged)
        with journal.step("build") as detail:
            detail.text = _build(board, deployment, staged=staged)
        with journal.step("verify") as detail:
            detail.text = _verify(board, deployment, staged=staged)
        with journal.step("choose") as detail:
            detail.text = _choose(board, staged=staged)
    except SystemProblem:
        raise
    except FinedgeError:
        board.remote.check(scripts.DISCARD, str(board.root), deployment.incoming)
        journal.rolled_back = True
        raise


def _copy(board: Board, deployment: Deployment, *, staged: PurePosixPath) -> str:
    names = deployment.incoming, deployment.folder, deployment.same_bytes
    live = board.remote.check(scripts.PREPARE, str(board.root), *names).strip()
    copy = copier(board_has_rsync=board.rsync)
    live_folder = board.root / live if live else None
    with progress_bar(f"copying to {board.remote.target.host}", None):
        return copy(board.remote, deployment.bundle, folder=staged, live=live_folder)


def _build(board: Board, deployment: Deployment, *, staged: PurePosixPath) -> str:
    if board.tensorrt is None:
        return f"skipped: TensorRT cannot run there ({board.why_no_tensorrt()})"
    if not deployment.precisions:
        return f"skipped: the bundle holds none of {', '.join(ENGINES)}"
    folder = f"{deployment.incoming}/{deployment.folder}"
    board.remote.check(scripts.ENGINES, str(board.root), folder)
    options = ["--backend", board.tensorrt, "--precision", ",".join(deployment.precisions)]
    engines = board.run(BuildAnswer, "build", str(staged), *options)["precisions"]
    return ", ".join(f"{name} {engine.get('seconds', 0):.0f} s" for name, engine in engines.items())


def _verify(board: Board, deployment: Deployment, *, staged: PurePosixPath) -> str:
    """Replay the golden frame on the backend that will run.

    That is the first that can run, as for `finedge classify`.
    """
    # Opening a variant without an engine builds one, so only variants with one are replayed.
    precisions = deployment.precisions if board.tensorrt else ()
    variants = sorted({name.partition("-")[0] for name in precisions})
    only = ["--variants", ",".join(variants)] if variants else []
    backend = ["--backend", board.tensorrt or "auto"]
    stages = board.run(VerifyAnswer, "verify", str(staged), *backend, *only)["stages"]
    count = sum(stage["pass"] is True for stage in stages)
    return f"{count} stages pass on {board.tensorrt or 'the CPU'}"


def _choose(board: Board, *, staged: PurePosixPath) -> str:
    """Time the variants there, and write into the bundle which one `auto` runs.

    The service has another account, and so another cache.
    """
    backend = ["--backend", board.tensorrt or "auto"]
    try:
        choice = board.run(ChoiceAnswer, "choose", str(staged), *backend, "--in-bundle")
    except FinedgeError as error:
        if UNKNOWN_COMMAND not in error.what:
            raise
        return "skipped: the finedge there is too old to compare the variants"
    return f"auto runs {choice['variant']} there: {choice['reason']}"


def _activate(board: Board, deployment: Deployment, *, journal: Journal) -> None:
    """Swap the version, restart and watch the service, and roll back if that fails.

    All of it is one transaction on the board, which ends even after the connection is lost.
    """
    steps: list[DeployStep] = []
    last = time.monotonic()

    def record(line: str) -> None:
        nonlocal last
        name, outcome, detail = (*line.split("\t", 2), "", "")[:3]
        now = time.monotonic()
        steps.append(DeployStep(name, outcome == "ok", now - last, detail))
        journal.add(steps[-1])
        last = now

    restart = deployment.restart
    names = deployment.incoming, deployment.version, deployment.folder
    arguments = str(board.root), *names, restart.service, str(restart.settle_s)
    result = board.remote.run(scripts.ACTIVATE, *arguments, on_line=record)
    if result.code:
        journal.rolled_back = all(step.ok for step in steps if step.name == "rollback")
        failed = next((step for step in steps if not step.ok), None)
        reason = f"{failed.name}: {failed.detail}" if failed else f"swap: {last_line(result.err)}"
        raise FinedgeError(
            f"{board.remote.target.host}: {reason}",
            expected="a service that starts and stays up",
            fix=f"on the board: journalctl -u {restart.service}"
            if restart.service
            else "look at the folder on the board",
        )


def _precisions(text: str, bundle: Bundle) -> tuple[str, ...]:
    """Return the precisions of a comma list, or by default the usual ones of the bundle.

    Raises:
        UsageError: an unknown precision.
        BundleError: the bundle lacks the file of one.
    """
    names = comma_list(text, kind="precision", known=FILES)
    for name in names:
        bundle.file(FILES[name])  # raises where the bundle lacks it
    return names or tuple(name for name in ENGINES if FILES[name] in bundle.files)
