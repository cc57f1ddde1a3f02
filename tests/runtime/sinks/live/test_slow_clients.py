"""Browsers that do not read, do not ask, or do both slowly: the pipeline does not notice."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finedge.runtime.serve import connections
from finedge.runtime.serve.connections import MAX_CLIENTS, Deadlines
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.page import LivePage

PATIENCE_S = 60.0
FLOOD = (
    b"GET /frame.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400
)  # far more answers than the buffers of a connection hold


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def classified(page: LivePage) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port(page), timeout=PATIENCE_S)
    connection.request("GET", "/state.json")
    state: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return int(state["cameras"][0]["classified"])


def port(page: LivePage) -> int:
    return int(re.findall(r":(\d+)/$", page.url)[0])


class Clients:
    """Connections with a small receive buffer that stay open."""

    def __init__(self) -> None:
        self.open: list[socket.socket] = []

    def add(self, page: LivePage, *, send: bytes = b"") -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", port(page)))
        connection.sendall(send)
        self.open.append(connection)
        return connection


@pytest.fixture
def clients() -> Iterator[Clients]:
    clients = Clients()
    yield clients
    for connection in clients.open:
        connection.close()


def server_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "finedge-serve"]


def hurry(page: LivePage, **seconds: float) -> None:
    """Give the clients of a page less time."""
    page._server._connections.deadlines = Deadlines(**seconds)


def test_clients_that_never_read_or_read_slowly_stop_nothing(
    serve: Callable[..., LivePage], result: Callable[..., Result], clients: Clients
) -> None:
    page = serve()
    page.write(result(0, size=(480, 640)))
    for _ in range(20):
        clients.add(page, send=FLOOD)
    slow = clients.add(page, send=FLOOD)
    wait(lambda: page.clients == 21)
    for index in range(1, 500):
        page.write(result(index))
        if index % 50 == 0:
            assert slow.recv(1)
            assert classified(page) == index + 1
    assert classified(page) == 500
    assert page.clients <= 22  # all of them still hang there


def test_a_newcomer_takes_the_place_of_the_oldest_that_only_holds_it(
    serve: Callable[..., LivePage], clients: Clients
) -> None:
    page = serve()
    for _ in range(MAX_CLIENTS):
        clients.add(page)
    wait(lambda: page.clients == MAX_CLIENTS)
    for number in range(5):
        assert classified(page) == 0
        assert clients.open[number].recv(100) == b""
        clients.add(page)
    wait(lambda: page.clients == MAX_CLIENTS)


def test_where_every_client_is_at_work_one_more_is_refused(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = serve()
    page.write(result(0, size=(480, 640)))
    for _ in range(MAX_CLIENTS):
        clients.add(page, send=FLOOD)
    wait(
        lambda: (
            page.clients == MAX_CLIENTS
            and all(c.phase == "answer" for c in tuple(page._server._connections._open))
        )
    )
    assert clients.add(page).recv(100).startswith(b"HTTP/1.1 503 ")
    monkeypatch.setattr(
        connections, "STUCK_S", 0.0
    )  # those that do not take their answer give way in the end
    assert classified(page) == 1


def test_who_has_the_token_keeps_the_place(
    serve: Callable[..., LivePage], clients: Clients
) -> None:
    page = serve(token="a-token-of-some-length_1")
    browser = http.client.HTTPConnection("127.0.0.1", port(page), timeout=PATIENCE_S)
    browser.request("GET", "/?token=a-token-of-some-length_1")
    answer = browser.getresponse()
    cookie = answer.headers["Set-Cookie"].split(";")[0]
    for _ in range(3):
        answer.read()
        browser.request("GET", "/state.json", headers={"Cookie": cookie})
        answer = browser.getresponse()
        assert answer.status == 200
        for _ in range(MAX_CLIENTS):
            clients.add(page)
    browser.close()


def test_forty_that_come_again_and_again_lock_nobody_out(serve: Callable[..., LivePage]) -> None:
    page, stop = serve(token="a-token-of-some-length_1"), threading.Event()

    def hold() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port(page)), 5) as held,
            ):
                held.sendall(b"GET / HTTP/1.1\r\nX: ")
                held.settimeout(5)
                held.recv(64)
            stop.wait(0.05)

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(40)]
    for thread in threads:
        thread.start()
    answered = 0
    for _ in range(20):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port(page)), 5) as honest,
        ):
            honest.settimeout(5)
            honest.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answered += b"silent_s" in honest.recv(4096) + honest.recv(4096)
        stop.wait(0.05)
    stop.set()
    page.close()
    for thread in threads:
        thread.join(10)
    assert answered >= 15  # of 20: the machine may be busy


def test_a_request_without_end_is_let_go(serve: Callable[..., LivePage], clients: Clients) -> None:
    page = serve()
    endless = clients.add(page, send=b"GET / HTTP/1.1\r\n")
    wait(lambda: page.clients == 1)
    with contextlib.suppress(OSError):
        for number in range(99):
            endless.sendall(b"X-%d: " % number + b"a" * 8000 + b"\r\n")
    wait(lambda: page.clients == 0)


@pytest.mark.parametrize(
    "send", [b"", b"GET / HT", FLOOD], ids=["silent", "half a request", "does not read"]
)
def test_who_does_not_get_on_with_it_is_let_go(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    clients: Clients,
    send: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = serve()
    hurry(page, head_s=0.3, answer_s=0.3)
    page.write(result(0, size=(480, 640)))
    clients.add(page, send=send)
    wait(lambda: page.clients == 1)
    wait(lambda: page.clients == 0)


def test_a_request_sent_byte_by_byte_gets_no_more_time_with_each(
    serve: Callable[..., LivePage], clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = serve()
    hurry(page, head_s=0.5)
    slow = clients.add(page)
    wait(lambda: page.clients == 1)

    def let_go() -> bool:
        with contextlib.suppress(OSError):
            slow.sendall(b"a")  # never the end of a line
        return page.clients == 0

    wait(let_go)


def test_close_ends_every_thread_whatever_the_browsers_do(
    serve: Callable[..., LivePage], result: Callable[..., Result], clients: Clients
) -> None:
    page = serve()
    page.write(result(0, size=(480, 640)))
    for send in (FLOOD, b"", b"GET / HT"):
        for _ in range(7):
            clients.add(page, send=send)
    wait(lambda: page.clients == 21)
    page.close()
    wait(lambda: not server_threads())


def test_a_browser_that_leaves_in_the_middle_is_no_warning(
    serve: Callable[..., LivePage],
    result: Callable[..., Result],
    clients: Clients,
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = serve()
    page.write(result(0, size=(480, 640)))
    for _ in range(5):
        clients.add(page, send=FLOOD).close()
    wait(lambda: page.clients == 0)
    assert classified(page) == 1
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
