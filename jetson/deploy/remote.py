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

# ssh gives up on a board that does not answer for 10 s, and on a link that is silent for 60 s.
SSH_OPTIONS = {
    "ConnectTimeout": "10",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "ControlPersist": "no",
}
NO_CONNECTION = 255  # ssh's own exit code; any other is that of the command
# A leading dash would be an option of ssh, and a / would be a path for rsync.
# The shell of a ProxyCommand would read a blank or a $ as something else.
USER = r"(?:\w[\w.+@-]*\$?@)?"
ZONE = r"(?:%[\w.-]+)?"
IPV6 = rf"\[[0-9A-Fa-f:.]+{ZONE}\]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*{ZONE}"
HOST = re.compile(rf"{USER}(?:\w[\w.-]*|{IPV6})")
READY = "finedge-ready"  # what a login prints before this is not output of the command


@dataclass(frozen=True)
class SshTarget:
    """A board to log in to.

    Attributes:
        host: `user@board`, or a host of ~/.ssh/config.
        port: ssh's port, where ~/.ssh/config does not set it.
        identity: the private key, where ~/.ssh/config does not set it.

    Raises:
        UsageError: `host` is not the name of a host.
    """

    host: str
    port: int | None = None
    identity: Path | None = None

    def __post_init__(self) -> None:
        if not HOST.fullmatch(self.host):
            raise UsageError(
                f"'{self.host}' is not the name of a board",
                expected="user@board, or a host of ~/.ssh/config",
            )

    @property
    def rsync_host(self) -> str:
        """The host as rsync writes it: an IPv6 address in brackets."""
        user, at, name = self.host.rpartition("@")
        return f"{user}{at}[{name}]" if ":" in name and not name.startswith("[") else self.host


@dataclass(frozen=True)
class CommandResult:
    """The exit code of a command on the board, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class RunningCommand:
    """A command on the board that runs until its input ends."""

    process: subprocess.Popen[str]
    errors: IO[str]

    def wait_for_line(self, line: str) -> bool:
        """Wait for a line of its output; return False when it ended without that line."""
        return any(text.strip() == line for text in _opened(self.process.stdout))

    def wait(self) -> CommandResult:
        """Wait for its end; return the exit code and stderr."""
        code = self.process.wait()
        self.errors.seek(0)
        return CommandResult(code, "", self.errors.read())


@dataclass(frozen=True)
class Remote:
    """An open connection.

    `control` is the socket that all commands share, so that ssh asks for a password only once.
    """

    target: SshTarget
    control: Path

    def ssh(self, *, master: bool = False) -> list[str]:
        """Return the ssh command line up to the host."""
        options = {
            **SSH_OPTIONS,
            "ControlMaster": "yes" if master else "no",
            "ControlPath": str(self.control),
        }
        identity = str(self.target.identity)
        key = ["-i", identity, "-o", "IdentitiesOnly=yes"] if self.target.identity else []
        settings = [word for item in options.items() for word in ("-o", "=".join(item))]
        return ["ssh", "-T", "-x", *settings, *self._port(), *key]

    def command(self, script: str, *arguments: str, master: bool = False) -> list[str]:
        """Return the command line that runs a POSIX shell script on the board.

        `arguments` are the script's $1, $2, ...
        """
        shell = shlex.join(["sh", "-c", f"echo {READY}\n{script}", "sh", *arguments])
        return [*self.ssh(master=master), "--", self.target.host, shell]

    def run(
        self,
        script: str,
        *arguments: str,
        text: str = "",
        on_line: Callable[[str], object] = len,
        level: int = logging.INFO,
    ) -> CommandResult:
        """Run a script on the board to its end.

        Args:
            script: a POSIX shell script.
            arguments: its $1, $2, ...
            text: its standard input.
            on_line: called with each line of its output as soon as it is written.
            level: the level at which its stderr is logged.

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
            errors: list[str] = []
            listener = threading.Thread(
                target=_log_lines, args=(_opened(process.stderr), errors, level), daemon=True
            )
            listener.start()
            with contextlib.suppress(BrokenPipeError):  # a script need not read its input
                _opened(process.stdin).write(text)
                _opened(process.stdin).close()
            out: list[str] = []
            for line in _after_ready(process):
                out.append(line)
                on_line(line.rstrip("\n"))
            listener.join()
        result = CommandResult(process.returncode, "".join(out), "\n".join(errors))
        if result.code == NO_CONNECTION:
            raise self.lost(result.err)
        return result

    def check(self, script: str, *arguments: str, text: str = "") -> str:
        """Run a script that must succeed; return what it wrote.

        Raises:
            SystemProblem: the connection broke.
            FinedgeError: the script failed.
        """
        result = self.run(script, *arguments, text=text)
        if result.code:
            reason = last_line(result.err) or f"a command ended with exit code {result.code}"
            raise FinedgeError(f"{self.target.host}: {reason}")
        return result.out

    @contextlib.contextmanager
    def hold(self, script: str, *arguments: str, master: bool = False) -> Iterator[RunningCommand]:
        """Run a script that waits for the end of its input.

        It ends with the block. It also ends with this process, however that ends.
        """
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
                yield RunningCommand(process, errors)
            finally:
                _opened(process.stdin).close()

    def alive(self) -> bool:
        """Tell whether the shared connection is still open."""
        command = [*self.ssh(), "-O", "check", "--", self.target.host]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def lost(self, errors: str) -> SystemProblem:
        """Return the error of a board that cannot be reached; `errors` is what ssh wrote."""
        key = ["-i", str(self.target.identity)] if self.target.identity else []
        login = shlex.join(["ssh", *self._port(), *key, self.target.host, "true"])
        return SystemProblem(
            f"{self.target.host} cannot be reached: {last_line(errors) or 'ssh gave no reason'}",
            expected="a board that ssh logs in to",
            fix=f"make this work first: {login}",
        )

    def _port(self) -> list[str]:
        return ["-p", str(self.target.port)] if self.target.port is not None else []


@contextlib.contextmanager
def connect(target: SshTarget) -> Iterator[Remote]:
    """Log in; the connection closes with the block.

    Raises:
        SystemProblem: ssh is not installed here, or the login failed.
    """
    if shutil.which("ssh") is None:
        raise SystemProblem("ssh is not installed here", fix="apt-get install openssh-client")
    # The path of a Unix socket must be short, and the user's own TMPDIR may be deep.
    with tempfile.TemporaryDirectory(prefix="finedge-", dir="/tmp") as folder:
        remote = Remote(target, Path(folder) / "ssh")
        with remote.hold("cat", master=True) as session:
            if not session.wait_for_line(READY):
                raise remote.lost(session.wait().err)
            yield remote


def last_line(text: str) -> str:
    """Return the last line that is not blank, or an empty text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _after_ready(process: subprocess.Popen[str]) -> Iterator[str]:
    lines = iter(_opened(process.stdout))
    any(line.strip() == READY for line in lines)
    return lines


def _log_lines(stream: IO[str], lines: list[str], level: int) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))
        log.log(level, "board: %s", lines[-1])


def _opened(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # every Popen above asks for pipes
    return stream
