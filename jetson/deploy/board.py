"""The board as it is found: where things are there, what can run, and the lock that keeps other deploys out."""

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
from finedge.jetson.deploy.remote import NO_CONNECTION, Done, Remote, last_line
from finedge.schema import Misfit, Text, decode

T = TypeVar("T")

TENSORRT = ("tensorrt", "tensorrt-rtx")
PRETENDERS = {"fake"}
REMOTE_ERRORS: dict[int, type[FinedgeError]] = {
    4: BundleError,
    5: GateError,
}  # exit codes that mean here what they mean there

SHOWN = 500  # characters of an answer


class Built(TypedDict):
    """What of the answer of `finedge build` is read here."""

    precisions: Mapping[Text, EngineBuilt]


class EngineBuilt(TypedDict, total=False):
    """One engine; without `seconds` it was there before."""

    seconds: float


Stage = TypedDict("Stage", {"pass": bool | None})


class Verified(TypedDict):
    """What of the answer of `finedge verify` is read here."""

    stages: tuple[Stage, ...]


class Doctor(TypedDict):
    """What of the answer of `finedge doctor` is read here: each backend's `why_not`."""

    backends: Mapping[Text, str | None]


@dataclass(frozen=True)
class Board:
    """A board that was found fit.

    `root` is the folder of the bundles, `finedge` the command, `rsync` whether it has that, `backends` each backend's `why_not()`.
    """

    remote: Remote
    root: PurePosixPath
    finedge: str
    rsync: bool
    backends: Mapping[str, str | None]

    @property
    def runnable(self) -> list[str]:
        """The backends that run there, in the board's own order."""
        return [name for name, why in self.backends.items() if why is None]

    @property
    def tensorrt(self) -> str | None:
        """The TensorRT backend that runs there, or None."""
        return next((name for name in self.runnable if name in TENSORRT), None)

    def why_no_tensorrt(self) -> str:
        """Return what the board said."""
        return "; ".join(
            f"{name}: {self.backends.get(name, 'unknown to the finedge there')}"
            for name in TENSORRT
        )

    def run(self, kind: type[T], *words: str) -> T:
        """Run the board's finedge; return what it printed, as a `kind`.

        Raises:
            BundleError: its exit code is 4.
            GateError: its exit code is 5.
            FinedgeError: it failed otherwise, or its answer is none.
        """
        done = self.remote.run(scripts.FINEDGE, self.finedge, *words)
        what = f"{self.remote.target.host}: finedge {words[0]}"
        if done.code:
            raise REMOTE_ERRORS.get(done.code, FinedgeError)(f"{what}: {complaint(done)}")
        return _understood(kind, done, what=what, fix=f"{self.finedge} --version, on the board")


def _understood(kind: type[T], done: Done, *, what: str, fix: str) -> T:
    """Return what a command on the board answered; a library may have said something before."""
    text = last_line(done.out)
    try:
        return decode(kind, parse_json(text, name=what, error=FinedgeError, fix=fix))
    except (FinedgeError, Misfit) as error:
        raise FinedgeError(
            f"{what} answered '{text[:SHOWN]}'", expected="JSON as this version writes it", fix=fix
        ) from error


def examine(remote: Remote, *, finedge: str, path: str, service: str) -> Board:
    """Ask the board for what it has; nothing is changed there.

    Raises:
        SystemProblem: it has no finedge, or no backend can run.
        FinedgeError: it has no such service that this user may restart.
    """
    host = remote.target.host
    facts = {
        name: value
        for name, _, value in (
            line.partition("=") for line in remote.check(scripts.PROBE, finedge).splitlines()
        )
    }
    if not facts.get("finedge"):
        raise SystemProblem(
            f"{host} has no finedge: '{finedge}' is not on the PATH that ssh gives",
            expected=f"it there, or one of {', '.join(scripts.ELSEWHERE)}",
            fix="install finedge on the board, or name it: --finedge /path/to/finedge",
        )
    if service and remote.run(scripts.SERVICE, service).code:
        raise FinedgeError(
            f"{host} has no unit '{service}' that this user may restart",
            expected="a unit of this user; or one of the system, as root or with sudo without a password for it (jetson/README.md has the rule)",
            fix=f"look on the board: systemctl cat {service}; sudo -n -l systemctl restart {service}",
        )
    root = PurePosixPath(facts.get("home") or "/") / path.removeprefix("~/")
    return Board(
        remote,
        root,
        facts["finedge"],
        bool(facts.get("rsync")),
        _backends(remote, facts["finedge"]),
    )


@contextlib.contextmanager
def locked(board: Board) -> Iterator[None]:
    """Keep other deploys out; the lock goes with the connection, however that ends.

    Raises:
        FinedgeError: another deploy holds it, or the folder cannot be made.
    """
    host = board.remote.target.host
    with board.remote.hold(scripts.LOCK, str(board.root)) as held:
        if not held.says(scripts.LOCKED):
            done = held.ended()
            if done.code == scripts.BUSY:
                raise FinedgeError(
                    f"{host}: another deploy to {board.root} is under way",
                    fix=f"wait for it; `fuser -v {board.root}/.lock` there shows it",
                )
            if done.code == NO_CONNECTION:
                raise board.remote.lost(done.err)
            raise FinedgeError(
                f"{host}: {board.root} cannot be locked: {last_line(done.err)}",
                expected="a folder this user may write, and flock",
            )
        yield


def complaint(done: Done) -> str:
    """Return what a finedge command said when it failed."""
    said = next(
        (line for line in done.err.splitlines() if line.startswith("finedge: ")),
        last_line(done.err),
    )
    return said.removeprefix("finedge: ") or f"exit code {done.code}"


def _backends(remote: Remote, finedge: str) -> Mapping[str, str | None]:
    done = remote.run(scripts.FINEDGE, finedge, "doctor", "--json", level=logging.DEBUG)
    try:
        found = _understood(Doctor, done, what="finedge doctor", fix="")
        backends = found["backends"]
    except FinedgeError:
        backends = {}
    if done.code or not backends:
        raise SystemProblem(
            f"{remote.target.host}: finedge doctor: {complaint(done)}",
            expected="a backend that runs there",
            fix="finedge doctor, on the board",
        )
    return {name: why for name, why in backends.items() if name not in PRETENDERS}
