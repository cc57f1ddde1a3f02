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
from dataclasses import dataclass
from urllib.parse import SplitResult

from finedge import __version__
from finedge.errors import UsageError
from finedge.redact import basic, learn, learn_secret, mask
from finedge.runtime.events.notice import Notice, NoticeSink
from finedge.runtime.events.outbox import Outbox, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.sinks import Context
from finedge.runtime.sources.address import port_of, split, without_password

KEY = "FINEDGE_WEBHOOK_KEY"  # the name of the variable
MIN_KEY = 16  # characters
TIMEOUT_S = 10.0  # for each wait of a request
MAX_AFTER_S = 300.0  # of a receiver's Retry-After
# Request Timeout, Too Early, Too Many Requests: the receiver wants the same again.
AGAIN = {408, 425, 429}


@dataclass(frozen=True)
class Webhook:
    """A receiver of events.

    Attributes:
        address: http or https; a login in it is sent as HTTP Basic.
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
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"--webhook {mask(address)}", expected="http:// or https://HOST/PATH")
        key = environment.get(KEY) or None
        if key is not None:
            if len(key) < MIN_KEY:
                raise UsageError(f"{KEY} has {len(key)} characters", expected=f"at least {MIN_KEY}")
            learn_secret(key)
        parts = split(address)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts, None if key is None else key.encode(), context)

    def post(self, notice: Notice) -> None:
        """Send an event.

        Raises:
            Undelivered: there is no answer, or one that refuses.
        """
        body = json.dumps(payload(notice)).encode()
        connection = self._connection()
        try:
            connection.request("POST", self._target, body, self.headers(notice, body))
            answer = connection.getresponse()
            answer.read(1024)
            status, reason = answer.status, answer.reason
            after = answer.headers.get("retry-after")
        except (OSError, http.client.HTTPException) as error:
            raise Undelivered(
                f"{self.name} does not answer: {error or type(error).__name__}",
                expected="an answer of 2xx within 10 s",
                fix="the events wait, and it is tried again",
            ) from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise self._refusal(status, reason, after)

    def headers(self, notice: Notice, body: bytes) -> dict[str, str]:
        """Return the headers of a request with this body, at this moment."""
        signed = {} if self.key is None else {"X-Finedge-Signature": sign(self.key, body)}
        login = {}
        if self.address.username is not None:
            text = basic(self.address.username, self.address.password or "")
            login = {"Authorization": f"Basic {text}"}
        return {
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
        return (self.address.path or "/") + query

    def _connection(self) -> http.client.HTTPConnection:
        host, port = str(self.address.hostname), port_of(self.address)
        if self.address.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self.context)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

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
