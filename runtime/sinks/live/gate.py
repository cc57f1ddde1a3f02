"""Who may see the page: this machine only, or who brings the token."""

from __future__ import annotations

import hmac
import re
import secrets
from email.message import Message

from finedge.errors import UsageError
from finedge.runtime.sinks.live.address import names_loopback

TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]{16,128}")  # survives a URL as it is


class Gate:
    """Checks the headers of a request.

    Without a token only requests whose Host names this machine pass: a foreign page that points its own name at 127.0.0.1 (DNS
    rebinding) does not. With one, the token is shown once as `?token=`; a cookie with another secret, good until the program ends, stands
    for it from then on, so that the token stays out of the browser's later requests.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and not TOKEN_FORM.fullmatch(token):
            raise UsageError(
                f"a token of {len(token)} characters",
                expected="16 to 128 letters, digits, '-' or '_'",
                fix="leave it out: one is made and logged",
            )
        self._token, self._session = token, secrets.token_urlsafe(32)

    @property
    def wants_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def host_ok(self, headers: Message) -> bool:
        """Tell whether the Host header is one that this page is served under; with a token any is."""
        return self.wants_token or names_loopback(headers.get("Host", ""))

    def token_ok(self, token: str) -> bool:
        """Tell whether a token is the right one, in constant time."""
        return self._token is not None and _same(token, self._token)

    def known(self, headers: Message, *, port: int) -> bool:
        """Tell whether the request may see the page: it needs no token, or its cookie stands for one."""
        if not self.wants_token:
            return True
        # Not by http.cookies: one cookie of another program of this host that it cannot read makes it forget all.
        pairs = (pair.strip().partition("=") for pair in headers.get("Cookie", "").split(";"))
        return any(
            name == cookie_name(port) and _same(value, self._session) for name, _, value in pairs
        )

    def cookie(self, port: int) -> str:
        """Return the Set-Cookie value that stands for the token."""
        # Lax, not Strict: a link in a chat must work at once; pictures asked for by a foreign page carry no cookie either way.
        return f"{cookie_name(port)}={self._session}; HttpOnly; SameSite=Lax; Path=/"


def cookie_name(port: int) -> str:
    """Return the cookie's name: browsers share cookies between the ports of a host."""
    return f"finedge-{port}"


def _same(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(errors="replace"), second.encode())
