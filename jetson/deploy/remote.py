"""Commands on a board: one connection of the system's ssh, shared by all of them and by rsync."""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from finedge.errors import FinedgeError, SystemProblem, UsageError

log = logging.getLogger(__name__)

# A board that does not answer is given up after 10 s, a link that went silent after 60 s.
OPTIONS = (
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ServerAliveCountMax=4",
    "-o",
    "ControlPersist=no",
)
NO_CONNECTION = 255  # ssh's own exit code; any other is that of the command
# A leading dash would be an option of ssh, a / a path for rsync, a blank or a $ something else for
# a ProxyCommand's shell.
BOARD = re.compile(
    r"(?:\w[\w.+@-]*\$?@)?(?:\w[\w.-]*|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)"
)
READY = "finedge-ready"  # what a login says before it is no part of a command's output


@dataclass(frozen=True)
class Target:
    """`user@board`, or a name of ~/.ssh/config; port and key where they are not set there."""

    host: str
    port: int | None = None
    identity: Path | None = None

    def __post_init__(self) -> None:
        if not BOARD.fullmatch(self.host):
            raise UsageError(
                f"'{self.host}' names no board", expected="user@board, or a host of ~/.ssh/config"
            )

    @property
    def rsync_host(self) -> str:
        """The host as rsync writes it: an IPv6 address in brackets."""
        user, at, name = self.host.rpartition("@")
        return f"{user}{at}[{name}]" if ":" in name and not name.startswith("[") else self.host


@dataclass(frozen=True)
class Done:
    """How a command on the board ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Held:
    """A command on the board that runs until its input ends."""

    process: subprocess.Popen[str]
    errors: IO[str]

    def says(self, word: str) -> bool:
        """Wait for a line of its output; False when it ended without it."""
        return any(line.strip() == word for line in _open(self.process.stdout))

    def ended(self) -> Done:
        """Wait for its end; return how it ended."""
        code = self.process.wait()
        self.errors.seek(0)
        return Done(code, "", self.errors.read())


@dataclass(frozen=True)
class Remote:
    """An open connection; `control` is the socket that further commands share, so that a password is asked for once."""

    target: Target
    control: Path

    def ssh(self, *, master: bool = False) -> list[str]:
        """Return the ssh command line up to the host."""
        port = ["-p", str(self.target.port)] if self.target.port is not None else []
        key = (
            ["-i", str(self.target.identity), "-o", "IdentitiesOnly=yes"]
            if self.target.identity
            else []
        )
        share = [
            "-o",
            f"ControlMaster={'yes' if master else 'no'}",
            "-o",
            f"ControlPath={self.control}",
        ]
        return ["ssh", "-T", "-x", *OPTIONS, *share, *port, *key]

    def command(self, script: str, *arguments: str, master: bool = False) -> list[str]:
        """Return the command line that runs a POSIX shell script on the board; `arguments` are its $1, $2, ..."""
        return [
            *self.ssh(master=master),
            "--",
            self.target.host,
            shlex.join(["sh", "-c", f"echo {READY}\n{script}", "sh", *arguments]),
        ]

    def run(
        self,
        script: str,
        *arguments: str,
        text: str = "",
        heard: Callable[[str], object] = len,
        level: int = logging.INFO,
    ) -> Done:
        """Run a script on the board to its end, `text` on its standard input.

        `heard` is called with each line as it is written; what comes on stderr is logged at `level`.

        Raises:
            SystemProblem: the connection broke.
        """
        with subprocess.Popen(
            self.command(script, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            lines: list[str] = []
            listener = threading.Thread(
                target=_log_lines, args=(_open(process.stderr), lines, level), daemon=True
            )
            listener.start()
            with contextlib.suppress(BrokenPipeError):  # a script need not read its input
                _open(process.stdin).write(text)
                _open(process.stdin).close()
            out: list[str] = []
            for line in _after_ready(process):
                out.append(line)
                heard(line.rstrip("\n"))
            listener.join()
        done = Done(process.returncode, "".join(out), "\n".join(lines))
        if done.code == NO_CONNECTION:
            raise self.lost(done.err)
        return done

    def check(self, script: str, *arguments: str, text: str = "") -> str:
        """Run a script that must succeed; return what it wrote."""
        done = self.run(script, *arguments, text=text)
        if done.code:
            raise FinedgeError(
                f"{self.target.host}: {last_line(done.err) or f'a command ended with exit code {done.code}'}"
            )
        return done.out

    @contextlib.contextmanager
    def hold(self, script: str, *arguments: str, master: bool = False) -> Iterator[Held]:
        """Run a script that waits for the end of its input: it ends with the block, and with this process however that ends."""
        command = self.command(script, *arguments, master=master)
        with (
            tempfile.TemporaryFile("w+", errors="replace") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                yield Held(process, errors)
            finally:
                _open(process.stdin).close()

    def alive(self) -> bool:
        """Tell whether the shared connection is still open."""
        return (
            subprocess.run(
                [*self.ssh(), "-O", "check", "--", self.target.host],
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )

    def lost(self, said: str) -> SystemProblem:
        """Return the error of a board that cannot be reached, with ssh's own words."""
        return SystemProblem(
            f"{self.target.host} cannot be reached: {last_line(said) or 'ssh gave no reason'}",
            expected="a board that ssh logs in to",
            fix=f"make this work first: {shlex.join(['ssh', *self._hints(), self.target.host, 'true'])}",
        )

    def _hints(self) -> list[str]:
        port = ["-p", str(self.target.port)] if self.target.port is not None else []
        return [*port, "-i", str(self.target.identity)] if self.target.identity else port


@contextlib.contextmanager
def connect(target: Target) -> Iterator[Remote]:
    """Log in; the connection closes with the block.

    Raises:
        SystemProblem: there is no ssh here, the board does not answer, or it does not let us in.
    """
    if shutil.which("ssh") is None:
        raise SystemProblem("there is no ssh here", fix="apt-get install openssh-client")
    # Unix sockets have short names: not in the user's own TMPDIR, which may be deep.
    with tempfile.TemporaryDirectory(prefix="finedge-", dir="/tmp") as folder:
        remote = Remote(target, Path(folder) / "ssh")
        with remote.hold("cat", master=True) as held:
            if not held.says(READY):
                raise remote.lost(held.ended().err)
            yield remote


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _after_ready(process: subprocess.Popen[str]) -> Iterator[str]:
    lines = iter(_open(process.stdout))
    any(line.strip() == READY for line in lines)
    return lines


def _log_lines(stream: IO[str], lines: list[str], level: int) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))
        log.log(level, "board: %s", lines[-1])


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # every Popen above asks for pipes
    return stream
