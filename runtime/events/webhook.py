"""Each event as a signed POST to one address.

The body is JSON: the event's record, and its best crop as base64. One body is one thing to sign,
and every receiver that reads JSON can read it. Headers:

    Idempotency-Key      the event's id and kind: the same for each try
    X-Finedge-Event      started or ended
    X-Finedge-Signature  t=SECONDS,v1=HEX: HMAC-SHA256 with FINEDGE_WEBHOOK_KEY over the seconds,
                         a dot and the body. Stripe signs in this form.

A receiver checks the signature and that the time is not old; then nobody can send a recorded
request again. Redirects are not followed: they would carry the pictures elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote

from finedge import __version__
from finedge.errors import UsageError
from finedge.redact import basic, learn, learn_secret, mask
from finedge.runtime.events.notice import Notice, NoticeSink
from finedge.runtime.events.outbox import Outbox, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.sinks import Context
from finedge.runtime.sources.address import split, without_password
from finedge.runtime.sources.deadline import Deadline
from finedge.runtime.sources.tcp import connect

KEY = "FINEDGE_WEBHOOK_KEY"  # the name of the variable
MIN_KEY = 16  # characters
TIMEOUT_S = 10.0  # of a request, from the name of the host to the head of the answer
BODY_S = 1.0  # for the first bytes of an answer's body, which says nothing more
SENT_AS_IT_IS = "/%:=&?~+!$,;'@()*[]"  # in an address; other characters are escaped
MAX_AFTER_S = 300.0  # of a receiver's Retry-After
# Request Timeout, Too Early, Too Many Requests: the receiver wants the same again.
AGAIN = {408, 425, 429}


@dataclass(frozen=True)
class Webhook:
    """A receiver of events.

    Attributes:
        address: http or https; a login in it is sent as HTTP Basic, its escapes (%40) decoded.
        key: signs the requests; None leaves them unsigned.
        context: of TLS, for https; certificates are verified.
    """

    address: SplitResult
    key: bytes | None = None
    context: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, address: str, *, environment: Mapping[str, str] = os.environ) -> Webhook:
        """Read an address, and the key of the environment.

        Raises:
            UsageError: it is no address of a web server, or the key is short.
        """
        learn(address)
        if not address.lower().startswith(("http://", "https://")):
            raise UsageError(f"--webhook {mask(address)}", expected="http:// or https://HOST/PATH")
        key = environment.get(KEY) or None
        if key is not None:
            if len(key) < MIN_KEY:
                raise UsageError(f"{KEY} has {len(key)} characters", expected=f"at least {MIN_KEY}")
            learn_secret(key)
        parts = split(address)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts, None if key is None else os.fsencode(key), context)

    def post(self, notice: Notice) -> None:
        """Send an event.

        Raises:
            Undelivered: there is no answer, or one that refuses.
        """
        body = json.dumps(payload(notice)).encode()
        try:
            answer = self._answer(body, self.headers(notice, body))
        except (OSError, http.client.HTTPException) as error:
            raise Undelivered(
                f"{self.name} does not answer: {error or type(error).__name__}",
                expected=f"an answer of 2xx within {TIMEOUT_S:g} s",
                fix="SSL_CERT_FILE names the certificate that signed its own; the events wait"
                if isinstance(error, ssl.SSLCertVerificationError)
                else "the events wait, and it is tried again",
            ) from error
        if not 200 <= answer.status < 300:
            after = answer.headers.get("retry-after")
            raise self._refusal(answer.status, answer.reason, after)

    def headers(self, notice: Notice, body: bytes) -> dict[str, str]:
        """Return the headers of a request with this body, at this moment."""
        signed = {} if self.key is None else {"X-Finedge-Signature": sign(self.key, body)}
        login = {}
        if self.address.username is not None:
            text = basic(unquote(self.address.username), unquote(self.address.password or ""))
            login = {"Authorization": f"Basic {text}"}
        return {
            "Host": self._host,
            "Connection": "close",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "User-Agent": f"finedge/{__version__}",
            "Idempotency-Key": notice.key,
            "X-Finedge-Event": notice.event.kind,
            **signed,
            **login,
        }

    @property
    def name(self) -> str:
        """The address for messages: without login and query."""
        return mask(without_password(self.address._replace(query="", fragment="")))

    @property
    def _target(self) -> str:
        query = f"?{self.address.query}" if self.address.query else ""
        return quote((self.address.path or "/") + query, safe=SENT_AS_IT_IS)

    @property
    def _host(self) -> str:
        """What the header Host says."""
        host = str(self.address.hostname).encode("idna").decode()
        name = f"[{host}]" if ":" in host else host
        return name if self.address.port is None else f"{name}:{self.address.port}"

    def _answer(self, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Send a request and return the head of its answer, all of it within `TIMEOUT_S`."""
        lines = [f"POST {self._target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        # Not http.client's connection: its time-out begins again with each byte.
        deadline = Deadline(TIMEOUT_S)
        with connect(self.address, deadline=deadline, context=self.context) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered first
                connection.send(request)
            socket_like: Any = connection
            answer = http.client.HTTPResponse(socket_like, method="POST")
            answer.begin()
            connection.limit_each_wait(BODY_S)
            with suppress(OSError, http.client.HTTPException, ValueError):
                answer.read1(1024)  # so that a receiver sees its answer taken
            return answer

    def _refusal(self, status: int, reason: str, after: str | None) -> Undelivered:
        again = status >= 500 or status in AGAIN
        fix = "the event waits, and it is tried again" if again else "check the address and the key"
        if 300 <= status < 400:
            fix = "name the address that it leads to: redirects are not followed"
        return Undelivered(
            f"{self.name} answers {status} {reason}",
            expected="2xx",
            fix=fix,
            again=again,
            after_s=_seconds(after) if again else None,
        )


def payload(notice: Notice) -> dict[str, object]:
    """Return the body: the event's record and its crop."""
    crop = {"type": "image/jpeg", "base64": base64.b64encode(notice.jpeg).decode()}
    return {**notice.event.record(), "crop": crop}


def sign(key: bytes, body: bytes, *, seconds: int | None = None) -> str:
    """Return the value of X-Finedge-Signature.

    Args:
        key: that the receiver knows too.
        body: of the request.
        seconds: since 1970; without it, now.
    """
    at = int(time.time()) if seconds is None else seconds
    digest = hmac.new(key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After; a date in it is not read."""
    return min(float(text), MAX_AFTER_S) if text and text.isascii() and text.isdigit() else None


def open_webhook(
    outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
) -> NoticeSink | None:
    """Return the sink of --webhook."""
    if outputs.webhook is None:
        return None
    return Outbox("webhook", Webhook.parse(outputs.webhook).post)
