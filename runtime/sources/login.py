"""Passwords for stream servers: which address may get one, and the header that carries it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from email.message import Message
from urllib.parse import SplitResult, unquote

from finedge.redact import basic, learn_secret
from finedge.runtime.sources.address import PORTS, port_of


def may_log_in(parts: SplitResult, login: SplitResult) -> bool:
    """Return whether an address may get the password of another one.

    It may with the same scheme, host and port. It also may on https at its usual port, if the
    password was written for http at its usual port. Another port of one machine may be the server
    of another user.

    Args:
        parts: the address that asks for a password.
        login: the address that the user wrote.
    """
    if login.username is None or parts.hostname != login.hostname:
        return False
    written, target = (login.scheme, port_of(login)), (parts.scheme, port_of(parts))
    upgrade = (("http", PORTS["http"]), ("https", PORTS["https"]))
    return written == target or (written, target) == upgrade


def authorization(
    parts: SplitResult,
    headers: Message,
    *,
    method: str,
    target: str,
) -> tuple[str, ...]:
    """Return the header that answers a challenge, or ().

    Digest with MD5 (RFC 2617; with qop where the server asks for it), else Basic.

    Args:
        parts: an address with user and password.
        headers: of the answer with the challenge.
        method: of the request.
        target: of the request.
    """
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if set(user) & set('"\r\n\0'):  # would end the header, or its field
        return ()
    challenges: Sequence[str] = [str(text) for text in headers.get_all("www-authenticate") or ()]
    digest = next((text for text in challenges if text.lower().startswith("digest ")), None)
    if digest is None:
        return (f"Authorization: Basic {basic(user, password)}",)
    fields = {key.lower(): value for key, value in re.findall(r'(\w+)="([^"\r\n]*)"', digest)}
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    secret, request = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    learn_secret(secret)
    form = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{target}"'
    if "opaque" in fields:
        form += f', opaque="{fields["opaque"]}"'
    if "auth" not in re.split(r"[, ]+", fields.get("qop", "")):
        response = _md5(f"{secret}:{nonce}:{request}")
        return (f'Authorization: Digest {form}, response="{response}"',)
    client_nonce = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()[:16]
    response = _md5(f"{secret}:{nonce}:00000001:{client_nonce}:auth:{request}")
    qop = f'qop=auth, nc=00000001, cnonce="{client_nonce}", response="{response}"'
    return (f"Authorization: Digest {form}, {qop}",)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(errors="replace"), usedforsecurity=False).hexdigest()
