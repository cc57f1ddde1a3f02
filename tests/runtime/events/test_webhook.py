from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from finedge.errors import UsageError
from finedge.redact import mask_text
from finedge.runtime.events import webhook
from finedge.runtime.events.notice import Counts
from finedge.runtime.events.outbox import Outbox, Pauses, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import open_event_sinks
from finedge.runtime.events.webhook import KEY, Webhook
from tests.runtime.events.make import CONTEXT, make_event, make_notice, wait_until

SHORT = Pauses(first=0.01, longest=0.02)
SECRET = "a-key-of-the-house"


class Receiver:
    """A web server. `answer` gets the number of a request and returns status and headers."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[int], tuple[int, dict[str, str]]] = lambda _: (204, {})
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                status, headers = receiver.answer(len(receiver.requests))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/hook?camera=1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def sent(receiver: Receiver) -> list[Any]:
    return [json.loads(body)["track"] for _, _, body in receiver.requests]


def test_an_event_arrives_signed_with_its_crop(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with open_event_sinks(EventOutputs(webhook=receiver.address), CONTEXT) as sinks:
        sinks.write(make_event(3, "ended"))
    assert sinks.counts["webhook"] == Counts(1, 0, 0)
    ((path, headers, body),) = receiver.requests
    assert path == "/hook?camera=1"
    content = json.loads(body)
    crop = content.pop("crop")
    assert content == make_event(3, "ended").record()
    assert base64.b64decode(crop["base64"]) == make_notice(3).jpeg
    assert headers["Idempotency-Key"] == "visit-3-ended"
    at, mark = headers["X-Finedge-Signature"].removeprefix("t=").split(",v1=")
    expected = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert mark == expected
    assert SECRET not in mask_text(f"a text with {SECRET}")


def test_a_receiver_that_fails_gets_each_event_again_in_order(receiver: Receiver) -> None:
    receiver.answer = lambda n: ({1: 500, 2: 503, 4: 429}.get(n, 200), {})
    box = Outbox("webhook", Webhook.parse(receiver.address).post, pauses=SHORT)
    for number in range(3):
        box.write(make_notice(number))
    wait_until(lambda: box.counts == Counts(3, 0, 0))
    box.close()
    assert sent(receiver) == [0, 0, 0, 1, 1, 2]
    assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.requests[:3]}) == 1


def test_a_receiver_that_hangs_holds_nothing_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    free = threading.Event()

    def hang(number: int) -> tuple[int, dict[str, str]]:
        if number < 3:
            free.wait(20)
        return 200, {}

    receiver.answer = hang
    box = Outbox("webhook", Webhook.parse(receiver.address).post, pauses=SHORT)
    box.write(make_notice(1))
    wait_until(lambda: box.counts.delivered == 1)
    free.set()
    box.close()
    assert sent(receiver) == [1, 1, 1]


@pytest.mark.parametrize("status", [400, 401, 404, 413])
def test_a_refused_event_is_not_sent_again(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda n: (status if n == 1 else 200, {})
    box = Outbox("webhook", Webhook.parse(receiver.address).post, pauses=SHORT)
    for number in range(2):
        box.write(make_notice(number))
    box.close()
    assert (sent(receiver), box.counts) == ([0, 1], Counts(1, 1, 0))


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda _: (307, {"Location": "/elsewhere"})
    with pytest.raises(Undelivered, match="307") as error:
        Webhook.parse(receiver.address).post(make_notice(1))
    assert not error.value.again
    assert len(receiver.requests) == 1


def test_a_receiver_says_when_it_wants_the_next_try(receiver: Receiver) -> None:
    receiver.answer = lambda _: (429, {"Retry-After": "7"})
    with pytest.raises(Undelivered) as error:
        Webhook.parse(receiver.address).post(make_notice(1))
    assert (error.value.again, error.value.after_s) == (True, 7.0)


def test_nothing_that_listens_is_an_error_that_is_tried_again(receiver: Receiver) -> None:
    receiver.close()
    with pytest.raises(Undelivered, match="refused") as error:
        Webhook.parse(receiver.address).post(make_notice(1))
    assert error.value.again


Talk = Callable[[socket.socket], object]


@contextmanager
def speaking(talk: Talk) -> Iterator[str]:
    """Serve a receiver that reads each request and then talks as `talk` does."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline().strip().lower():
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            with contextlib.suppress(OSError):
                talk(self.connection)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        server.shutdown()


def say(*texts: bytes, every_s: float = 0.0) -> Talk:
    """Send texts, and the last one for ever."""

    def talk(connection: socket.socket) -> None:
        for text in chain(texts[:-1], repeat(texts[-1])):
            connection.sendall(text)
            time.sleep(every_s)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        say(b"HTTP/1.1 200 OK\r\nA: ", b"a", every_s=0.05),
        say(b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.05),
        say(b"HTTP/1.1 200 OK\r\n", b"A: " + b"a" * 60_000 + b"\r\n"),
        say(b"\xff\x00"),
    ],
    ids=["slow head", "no end of 100", "long head", "no HTTP"],
)
def test_an_answer_that_has_no_end_is_given_up(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.5)
    with speaking(talk) as address, pytest.raises(Undelivered, match="does not answer") as error:
        Webhook.parse(address).post(make_notice(1))
    assert error.value.again


@pytest.mark.parametrize("body", [b"x", b"x" * 65536], ids=["slow", "endless"])
def test_an_event_has_arrived_once_the_head_says_so(body: bytes) -> None:
    with speaking(say(b"HTTP/1.1 200 OK\r\n\r\n", body, every_s=0.05)) as address:
        Webhook.parse(address).post(make_notice(1))


def test_a_receiver_with_a_certificate_of_its_own_is_not_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made.split(), *names, *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    receiver = Receiver(server)
    address = receiver.address.replace("http://127.0.0.1", "https://localhost")
    try:
        with pytest.raises(Undelivered, match="self-signed") as error:
            Webhook.parse(address).post(make_notice(1))
        assert "SSL_CERT_FILE" in error.value.fix
        trusted = ssl.create_default_context(cafile=str(certificate))
        replace(Webhook.parse(address), context=trusted).post(make_notice(1))
    finally:
        receiver.close()
    assert sent(receiver) == [1]
    assert receiver.requests[0][1]["Host"] == urlsplit(address).netloc


def test_characters_that_an_address_may_not_hold_are_escaped(receiver: Receiver) -> None:
    place = receiver.address.partition("/hook")[0]
    Webhook.parse(f"{place}/ä b?q=ü&done=%20#part").post(make_notice(1))
    assert receiver.requests[0][0] == "/%C3%A4%20b?q=%C3%BC&done=%20"


def test_a_login_is_sent_and_not_shown(receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {})
    address = receiver.address.replace("127", "me%40home:hidden%3Aword@127", 1)
    with pytest.raises(Undelivered) as error:
        Webhook.parse(address).post(make_notice(1))
    assert "hidden" not in str(error.value)
    login = receiver.requests[0][1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(login) == b"me@home:hidden:word"


@pytest.mark.parametrize("address", ["ftp://host/x", "host/x", "http://", "http://host:0/x"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        Webhook.parse(address)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(UsageError, match="5 characters"):
        Webhook.parse("http://host/x", environment={KEY: "short"})
