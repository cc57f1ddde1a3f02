from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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

    def __init__(self) -> None:
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


def test_a_login_is_sent_and_not_shown(receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {})
    address = receiver.address.replace("127", "me:hidden-word@127", 1)
    with pytest.raises(Undelivered) as error:
        Webhook.parse(address).post(make_notice(1))
    assert "hidden-word" not in str(error.value)
    login = receiver.requests[0][1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(login) == b"me:hidden-word"


@pytest.mark.parametrize("address", ["ftp://host/x", "host/x", "http://", "http://host:0/x"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        Webhook.parse(address)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(UsageError, match="5 characters"):
        Webhook.parse("http://host/x", environment={KEY: "short"})
