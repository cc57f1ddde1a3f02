"""Where the page is served: HOST:PORT, resolved once, and whether only this machine can reach it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from finedge.errors import UsageError

FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):(\d{1,5})")
EXPECTED = "HOST:PORT, like 127.0.0.1:8080 or [::1]:8080"


@dataclass(frozen=True)
class Address:
    """A resolved address; port 0 lets the system choose one."""

    host: str
    port: int
    family: socket.AddressFamily

    @property
    def loopback(self) -> bool:
        """Whether no other machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback


def parse_address(text: str) -> Address:
    """Resolve `127.0.0.1:8080`, `[::1]:8080` or `name:8080`; of several addresses of a name the IPv4 one is taken.

    Raises:
        UsageError: the text has another form, or the name is not known.
    """
    match = FORM.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(f"the address '{text}'", expected=EXPECTED)
    host, port = match[1] or match[2], int(match[3])
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the host '{host}' is not known: {error}", expected=EXPECTED) from error
    family, _, _, _, where = min(found, key=lambda item: item[0] != socket.AF_INET)
    return Address(str(where[0]), port, family)


def url(host: str, port: int) -> str:
    """Return the address of the page as a browser wants it; instead of "every interface", this machine's name."""
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def names_loopback(host_header: str) -> bool:
    """Tell whether a Host header names this machine itself; any port, since a tunnel (`ssh -L`) changes it."""
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::\d{1,5})?", host_header.strip())
    name = (match[1] or match[2] or "") if match else ""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
