"""The options of `finedge deploy`, in groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import UsageError
from finedge.sanitize import printable

SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*")


@dataclass(frozen=True)
class Login:
    """How ssh logs in, where ~/.ssh/config does not say it.

    Attributes:
        port: ssh's port.
        identity: a private key for ssh.
    """

    port: int | None = None
    identity: Path | None = None

    def __post_init__(self) -> None:
        if self.identity is not None and not self.identity.is_file():
            raise UsageError(f"there is no key {self.identity}", expected="a private key file")


@dataclass(frozen=True)
class Installation:
    """What is where on the board.

    Attributes:
        path: the folder of the bundles; a second service has its own.
        finedge: the finedge command, where it is not on the PATH.
        keep: how many old versions stay.
    """

    path: str = "~/finedge/bundles"
    finedge: str = "finedge"
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise UsageError(f"--keep {self.keep}", expected="a number from 0")
        for text in (self.path, self.finedge):
            check_printable(text)


@dataclass(frozen=True)
class ServiceRestart:
    """The service that runs the bundle.

    Attributes:
        service: the systemd unit to restart. If it does not stay up, the old version comes back.
        settle_s: how long the service must stay up, in seconds.
    """

    service: str = ""
    settle_s: int = 10

    def __post_init__(self) -> None:
        if self.settle_s < 0:
            raise UsageError(f"--settle-s {self.settle_s}", expected="seconds, 0 or more")
        if self.service and not SERVICE.fullmatch(self.service):
            raise UsageError(f"--service '{self.service}'", expected="a systemd unit, e.g. finedge")


def check_printable(text: str) -> None:
    """Refuse a name that is empty or cannot be printed.

    Raises:
        UsageError: it is.
    """
    if not text or printable(text) != text:
        raise UsageError(
            f"'{text}' is empty or holds a character that cannot be printed",
            expected="printable names",
        )
