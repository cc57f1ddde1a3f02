"""Where a server listens, and who may ask it: this machine alone, or anyone with the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from finedge.errors import UsageError

ADDRESS_FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):(\d{1,5})")
HOST_FORM = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d{1,5})?")
EXPECTED = "HOST:PORT, like 127.0.0.1:8080 or [::1]:8080"
ROUNDS = 100_000  # of the cookie's secret: some 50 ms, once
TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]{16,128}")  # a URL needs no escapes for it


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
    """Resolve `127.0.0.1:8080`, `[::1]:8080` or `name:8080`.

    Where a name has several addresses, the IPv4 one is taken.

    Raises:
        UsageError: the text has another form, or the name is unknown.
    """
    match = ADDRESS_FORM.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(f"the address '{text}'", expected=EXPECTED)
    host, port = match[1] or match[2], int(match[3])
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the host '{host}' is unknown: {error}", expected=EXPECTED) from error
    family, _, _, _, endpoint = min(addresses, key=lambda item: item[0] != socket.AF_INET)
    return Address(str(endpoint[0]), port, family)


def url(host: str, port: int) -> str:
    """Return the URL of a server; this machine's name stands for "every interface"."""
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def given_token(option: str | None) -> str | None:
    """Return the token of the option, else that of FINEDGE_TOKEN, else None."""
    return option if option is not None else os.environ.get("FINEDGE_TOKEN") or None


def choose_token(token: str | None, address: Address) -> tuple[str | None, bool]:
    """Return the token of a server, and whether it is a random one that must be logged once.

    Without a token, a loopback address needs none, and any other one gets a random one.
    """
    if token is None and not address.loopback:
        return secrets.token_urlsafe(32), True
    return token, False


def names_loopback(host_header: str) -> bool:
    """Tell whether a Host header names this machine itself.

    Any port will do, because a tunnel (`ssh -L`) changes it.
    """
    match = HOST_FORM.fullmatch(host_header.strip())
    name = (match[1] or match[2] or "") if match else ""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class AccessGate:
    """Decides from the headers of a request whether it may see the page.

    Without a token, only requests whose Host names this machine pass. That keeps out a foreign
    page that points its own name at 127.0.0.1 (DNS rebinding). With a token, a browser shows it
    once as `?token=`. From then on a cookie with another secret stands for it. So the token stays
    out of the browser's later requests. The secret is made of the token: a page that is open goes
    on when the program is started again with the same token.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and not TOKEN_FORM.fullmatch(token):
            raise UsageError(
                f"a token of {len(token)} characters",
                expected="16 to 128 letters, digits, '-' or '_'",
                fix="leave it out: a random one is then made and logged",
            )
        self._token, self._session = token, "" if token is None else _session_of(token)

    @property
    def wants_token(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def allows_host(self, headers: Mapping[str, str]) -> bool:
        """Tell whether the page is served under this Host header; with a token any will do."""
        return self.wants_token or names_loopback(headers.get("Host", ""))

    def accepts(self, token: str) -> bool:
        """Tell whether a token is the right one, in constant time."""
        return self._token is not None and _same(token, self._token)

    def admits(self, headers: Mapping[str, str], *, port: int) -> bool:
        """Tell whether the request needs no token, or has the cookie that stands for it."""
        if not self.wants_token:
            return True
        # Not by http.cookies: one cookie of another program that it cannot read makes it drop all.
        pairs = (pair.strip().partition("=") for pair in headers.get("Cookie", "").split(";"))
        return any(
            name == cookie_name(port) and _same(value, self._session) for name, _, value in pairs
        )

    def cookie(self, port: int) -> str:
        """Return the Set-Cookie value that stands for the token."""
        # Lax, not Strict: a link in a chat must work at once. Pictures that a foreign page asks for
        # carry no cookie either way.
        return f"{cookie_name(port)}={self._session}; HttpOnly; SameSite=Lax; Path=/"


def bearer(headers: Mapping[str, str]) -> str:
    """Return the token of the header `Authorization: Bearer TOKEN`, or an empty text."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookie_name(port: int) -> str:
    """Return the cookie's name: browsers share cookies between the ports of a host."""
    return f"finedge-{port}"


def _session_of(token: str) -> str:
    """Return the secret of the cookie. Who has it cannot compute the token, nor soon guess it."""
    return hashlib.pbkdf2_hmac("sha256", token.encode(), b"finedge cookie", ROUNDS).hex()


def _same(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(errors="replace"), second.encode())
