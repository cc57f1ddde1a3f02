"""Passwords for servers of streams: which address may get one, and the header that carries it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from email.message import Message
from urllib.parse import SplitResult, unquote

from finedge.redact import basic, learn_secret

USUAL_PORTS = {"http": 80, "https": 443, "rtsp": 554}


def may_log_in(parts: SplitResult, login: SplitResult) -> bool:
    """Tell whether an address may get the password that was written for another one.

    Only the same scheme, host and port may; and https on its usual port, from http on its own:
    another port of one machine may be another user's server.
    """
    if login.username is None or parts.hostname != login.hostname:
        return False
    here, there = (login.scheme, _port(login)), (parts.scheme, _port(parts))
    secured = (here, there) == (("http", USUAL_PORTS["http"]), ("https", USUAL_PORTS["https"]))
    return here == there or secured


def _port(parts: SplitResult) -> int | None:
    return parts.port or USUAL_PORTS.get(parts.scheme)


def authorization(
    parts: SplitResult,
    headers: Message,
    *,
    method: str,
    target: str,
) -> tuple[str, ...]:
    """Return the header that answers a challenge, or ().

    Digest by MD5 (RFC 2617, with qop where the server asks for it), else Basic.
    """
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if set(user) & set('"\r\n\0'):  # would end the header, or its field
        return ()
    challenges: Sequence[str] = [str(text) for text in headers.get_all("www-authenticate") or ()]
    digest = next((c for c in challenges if c.lower().startswith("digest ")), None)
    if digest is None:
        return (f"Authorization: Basic {basic(user, password)}",)
    fields = {key.lower(): value for key, value in re.findall(r'(\w+)="([^"\r\n]*)"', digest)}
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    secret, question = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    learn_secret(secret)
    form = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{target}"'
    if "opaque" in fields:
        form += f', opaque="{fields["opaque"]}"'
    if "auth" not in re.split(r"[, ]+", fields.get("qop", "")):
        response = _md5(f"{secret}:{nonce}:{question}")
        return (f'Authorization: Digest {form}, response="{response}"',)
    ours = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()[:16]
    response = _md5(f"{secret}:{nonce}:00000001:{ours}:auth:{question}")
    counted = f'qop=auth, nc=00000001, cnonce="{ours}", response="{response}"'
    return (f"Authorization: Digest {form}, {counted}",)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(errors="replace"), usedforsecurity=False).hexdigest()
