"""What a board has: its folders, its finedge and its backends; and the lock on its folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypedDict, TypeVar

from finedge.document import parse_json
from finedge.errors import BundleError, FinedgeError, GateError, SystemProblem
from finedge.jetson.deploy import scripts
from finedge.jetson.deploy.remote import NO_CONNECTION, CommandResult, Remote, last_line
from finedge.runtime.backend import FAKES
from finedge.schema import Misfit, Text, decode

T = TypeVar("T")

TENSORRT = ("tensorrt", "tensorrt-rtx")
# Exit codes of the finedge on the board that become the same error here.
REMOTE_ERRORS: dict[int, type[FinedgeError]] = {4: BundleError, 5: GateError}
MAX_ANSWER = 500  # characters of an answer that an error shows


class BuildAnswer(TypedDict):
    """The part of the JSON of `finedge build` that deploy reads."""

    precisions: Mapping[Text, EngineAnswer]


class EngineAnswer(TypedDict, total=False):
    """One engine; `seconds` is missing where the engine was already there."""

    seconds: float


StageAnswer = TypedDict("StageAnswer", {"pass": bool | None})


class VerifyAnswer(TypedDict):
    """The part of the JSON of `finedge verify` that deploy reads."""

    stages: tuple[StageAnswer, ...]


class ChoiceAnswer(TypedDict):
    """The part of the JSON of `finedge choose` that deploy reads."""

    variant: Text
    reason: Text


class DoctorAnswer(TypedDict):
    """The part of the JSON of `finedge doctor` that deploy reads: each backend's `why_not`."""

    backends: Mapping[Text, str | None]


@dataclass(frozen=True)
class Board:
    """A board that can run a bundle.

    Attributes:
        remote: the connection to it.
        root: the folder of the bundles.
        finedge: the path of its finedge command.
        rsync: whether rsync is installed there.
        backends: each backend's `why_not()` on the board; None means that it can run.
    """

    remote: Remote
    root: PurePosixPath
    finedge: str
    rsync: bool
    backends: Mapping[str, str | None]

    @property
    def runnable(self) -> list[str]:
        """The backends that can run there, in the board's own order."""
        return [name for name, why_not in self.backends.items() if why_not is None]

    @property
    def tensorrt(self) -> str | None:
        """The TensorRT backend that can run there, or None."""
        return next((name for name in self.runnable if name in TENSORRT), None)

    def why_no_tensorrt(self) -> str:
        """Return what the board's doctor reported about each TensorRT backend."""
        reasons = {
            name: self.backends.get(name, "unknown to the finedge there") for name in TENSORRT
        }
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def run(self, kind: type[T], *words: str) -> T:
        """Run the board's finedge; return the JSON that it printed, as a `kind`.

        Raises:
            BundleError: its exit code is 4.
            GateError: its exit code is 5.
            FinedgeError: it failed otherwise, or its answer is not a `kind`.
        """
        result = self.remote.run(scripts.FINEDGE, self.finedge, *words)
        command = f"{self.remote.target.host}: finedge {words[0]}"
        if result.code:
            kind_of_error = REMOTE_ERRORS.get(result.code, FinedgeError)
            raise kind_of_error(f"{command}: {failure(result)}")
        fix = f"{self.finedge} --version, on the board"
        return _decoded(kind, result, command=command, fix=fix)


def _decoded(kind: type[T], result: CommandResult, *, command: str, fix: str) -> T:
    """Return the answer of a command: its last line, since a library may print lines before it."""
    text = last_line(result.out)
    try:
        return decode(kind, parse_json(text, name=command, error=FinedgeError, fix=fix))
    except (FinedgeError, Misfit) as error:
        raise FinedgeError(
            f"{command} answered '{text[:MAX_ANSWER]}'",
            expected="JSON as this version writes it",
            fix=fix,
        ) from error


def examine(remote: Remote, *, finedge: str, path: str, service: str) -> Board:
    """Return what the board has; nothing is changed there.

    Args:
        remote: the connection.
        finedge: the command there, on the PATH or as a path.
        path: the folder of the bundles; ~/ is the user's home folder there.
        service: a systemd unit that must exist, or "".

    Raises:
        SystemProblem: it has no finedge, or no backend can run.
        FinedgeError: it has no such unit that this user may restart.
    """
    host = remote.target.host
    lines = remote.check(scripts.PROBE, finedge).splitlines()
    facts = {name: value for name, _, value in (line.partition("=") for line in lines)}
    command = facts.get("finedge")
    if not command:
        raise SystemProblem(
            f"{host} has no finedge: '{finedge}' is not on the PATH that ssh gives",
            expected=f"it there, or one of {', '.join(scripts.OTHER_PLACES)}",
            fix="install finedge on the board, or name it: --finedge /path/to/finedge",
        )
    if service:
        _check_service(remote, service)
    root = PurePosixPath(facts.get("home") or "/") / path.removeprefix("~/")
    return Board(remote, root, command, bool(facts.get("rsync")), _backends(remote, command))


def _check_service(remote: Remote, service: str) -> None:
    if remote.run(scripts.SERVICE, service).code:
        raise FinedgeError(
            f"{remote.target.host} has no unit '{service}' that this user may restart",
            expected="a unit of this user; or a unit of the system, as root or with sudo "
            "without a password for it (jetson/README.md has the rule)",
            fix=f"look on the board: systemctl cat {service}; "
            f"sudo -n -l systemctl restart {service}",
        )


@contextlib.contextmanager
def locked(board: Board) -> Iterator[None]:
    """Keep other deployments out; the lock ends with the connection, however that ends.

    Raises:
        SystemProblem: the connection broke.
        FinedgeError: another deployment holds the lock, or the folder cannot be made.
    """
    with board.remote.hold(scripts.LOCK, str(board.root)) as lock:
        if not lock.wait_for_line(scripts.LOCKED):
            raise _lock_error(board, lock.wait())
        yield


def _lock_error(board: Board, result: CommandResult) -> FinedgeError:
    host = board.remote.target.host
    if result.code == scripts.BUSY:
        return FinedgeError(
            f"{host}: another deploy to {board.root} is running",
            fix=f"wait for it; `fuser -v {board.root}/.lock` there shows it",
        )
    if result.code == NO_CONNECTION:
        return board.remote.lost(result.err)
    return FinedgeError(
        f"{host}: {board.root} cannot be locked: {last_line(result.err)}",
        expected="a folder this user may write, and flock",
    )


def failure(result: CommandResult) -> str:
    """Return the error text of a finedge command that failed."""
    lines = (line for line in result.err.splitlines() if line.startswith("finedge: "))
    text = next(lines, last_line(result.err))
    return text.removeprefix("finedge: ") or f"exit code {result.code}"


def _backends(remote: Remote, finedge: str) -> Mapping[str, str | None]:
    result = remote.run(scripts.FINEDGE, finedge, "doctor", "--json", level=logging.DEBUG)
    try:
        answer = _decoded(DoctorAnswer, result, command="finedge doctor", fix="")
        backends = answer["backends"]
    except FinedgeError:
        backends = {}
    if result.code or not backends:
        raise SystemProblem(
            f"{remote.target.host}: finedge doctor: {failure(result)}",
            expected="a backend that can run there",
            fix="finedge doctor, on the board",
        )
    return {name: why_not for name, why_not in backends.items() if name not in FAKES}
