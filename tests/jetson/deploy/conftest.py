"""A board on this machine: a real sshd on the loopback.

Its PATH holds the tools of a board and this environment's finedge.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import GOLDEN, Bundle
from finedge.golden import pack, read_golden
from finedge.jetson.deploy.command import deploy
from finedge.jetson.deploy.options import Installation, Login, ServiceRestart

BIRDS = Path(__file__).parents[3] / "examples" / "birds.finedge"
TOOLS = (
    "cat", "chmod", "cp", "flock", "grep", "id", "ln", "ls", "mkdir", "mv",
    "readlink", "rm", "rsync", "sh", "sha256sum", "sleep", "sort", "sudo", "sync",
    "tail", "tar", "tr",
)  # fmt: skip
# Stands in for systemd, which needs to be the first process. It keeps a diary, and a unit that
# crashes on versions that are not listed in `good`.
SYSTEMCTL = """#!/bin/sh
[ "$1" = --user ] && exit 1
printf '%s %s\\n' "$1" "$(readlink '{root}/current')" >>'{state}/diary'
case $1 in
    cat) [ -e '{state}/no-unit' ] && exit 1 ;;
    restart) [ -e '{state}/no-restart' ] && {{ echo 'Job failed' >&2; exit 1; }} ;;
    is-active)
        version=$(readlink '{root}/current')
        if [ -e '{state}/good' ] && ! grep -qxF -e "$version" '{state}/good'; then
            echo failed
            exit 3
        fi
        echo active ;;
    show) echo NRestarts=0 ;;
esac
exit 0
"""


def grouped(options: dict[str, Any]) -> dict[str, Any]:
    """Return options by their names on the command line as the arguments of `deploy`."""
    kinds = {"login": Login, "installation": Installation, "restart": ServiceRestart}
    arguments = dict(options)
    for group, kind in kinds.items():
        names = [field.name for field in fields(kind) if field.name in arguments]
        arguments[group] = kind(**{name: arguments.pop(name) for name in names})
    return arguments


@dataclass(frozen=True)
class LocalBoard:
    """A board for one test.

    `root` is the folder of its bundles and `bin` its whole PATH. `local` is the first folder of the
    PATH on this side.
    """

    port: int
    key: Path
    root: Path
    bin: Path
    local: Path
    state: Path

    def deploy(self, bundle: Bundle | Path, **options: Any) -> dict[str, Any]:
        """Deploy to it."""
        path = bundle if isinstance(bundle, Path) else bundle.path
        board = {
            "port": self.port,
            "identity": self.key,
            "path": str(self.root),
            "settle_s": 0,
        }
        return deploy("127.0.0.1", path, **grouped({**board, **options}))

    def command(self, bundle: Bundle, service: str = "", settle_s: str = "0") -> list[str]:
        """Return a command line that deploys, for a process of its own."""
        board = ["--port", str(self.port), "--identity", str(self.key), "--path", str(self.root)]
        restart = ["--service", service, "--settle-s", settle_s]
        command = [sys.executable, "-m", "finedge", "deploy", "127.0.0.1", str(bundle.path)]
        return [*command, *board, *restart]

    @property
    def serving(self) -> Path:
        """The folder that the link leads to."""
        return (self.root / "current").resolve(strict=True)

    @property
    def versions(self) -> list[str]:
        """The versions there."""
        return sorted(p.name for p in (self.root / "versions").iterdir())

    @property
    def left_over(self) -> list[str]:
        """What no deployment may leave."""
        return sorted(
            p.name for p in self.root.iterdir() if p.name not in ("current", "versions", ".lock")
        )

    def lacks(self, tool: str) -> None:
        """Take a tool away."""
        (self.bin / tool).unlink()

    def set(self, name: str, text: str = "") -> None:
        """Set a file that the stand-in of systemctl reads."""
        (self.state / name).write_text(text)

    @property
    def diary(self) -> list[str]:
        """What systemctl was asked, with the version that was current then."""
        return (self.state / "diary").read_text().splitlines()


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBoard]:
    """Start an sshd as this user."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    ssh = shutil.which("ssh")
    if sshd is None or ssh is None:
        pytest.skip("needs openssh-server and openssh-client (tests/apt.txt)")
    folders = {name: tmp_path / name for name in ("bin", "local", "home", "state", "keys")}
    for folder in folders.values():
        folder.mkdir()
    board = LocalBoard(
        _free_port(),
        folders["keys"] / "user",
        folders["home"] / "finedge",
        folders["bin"],
        folders["local"],
        folders["state"],
    )
    _fill(board)
    config = _configure(board, folders, ssh=ssh)
    monkeypatch.setenv("PATH", f"{board.local}:{os.environ['PATH']}")
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            _wait_for(server, board.port)
            yield board
        finally:
            server.terminate()


@pytest.fixture
def birds(tmp_path: Path) -> Bundle:
    """A copy of the shipped bundle, for the test to change."""
    shutil.copytree(BIRDS, tmp_path / "here" / BIRDS.name)
    return Bundle.load(tmp_path / "here" / BIRDS.name)


def changed(bundle: Bundle, text: str) -> Bundle:
    """Return the bundle with another manifest and the same models."""
    return bundle.extend("note", {}, {"text": text})


def broken(bundle: Bundle) -> Bundle:
    """Return the bundle with a golden frame that no machine reproduces."""
    golden = read_golden(bundle)
    wrong = {
        name: value + 10 if name.startswith("model.int8.cpu.onnx/") else value
        for name, value in golden.items()
    }
    return bundle.extend("note", {GOLDEN: pack(wrong)}, {})


def _fill(board: LocalBoard) -> None:
    for tool in TOOLS:
        path = shutil.which(tool)
        if path:
            (board.bin / tool).symlink_to(path)
    (board.bin / "finedge").symlink_to(Path(sys.executable).with_name("finedge"))
    script(board.bin / "systemctl", SYSTEMCTL.format(root=board.root, state=board.state))


def _configure(board: LocalBoard, folders: dict[str, Path], *, ssh: str) -> Path:
    keys = folders["keys"]
    for name in ("host", "user", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True
        )
    (keys / "authorized").write_text((keys / "user.pub").read_text())
    (keys / "known").write_text(f"[127.0.0.1]:{board.port} {(keys / 'host.pub').read_text()}")
    (keys / "client").write_text(
        f"Host *\n  UserKnownHostsFile {keys / 'known'}\n"
        "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
    )
    # Rather than this user's own configuration.
    script(board.local / "ssh", f'#!/bin/sh\nexec {ssh} -F {keys / "client"} "$@"\n')
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what the package's start script does
    config = keys / "sshd"
    home = folders["home"]
    environment = f"PATH={board.bin} HOME={home} OMP_NUM_THREADS=1 FINEDGE_CACHE={home}/cache"
    environment += " FINEDGE_VARIANT_CHECK=off"  # a second at each deployment
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": board.port,
        "HostKey": keys / "host",
        "AuthorizedKeysFile": keys / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": environment,
    }
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return config


def script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.poll() is not None:
            assert server.stderr is not None
            pytest.skip(f"sshd does not start here: {server.stderr.read().strip()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd did not listen within 30 s")
