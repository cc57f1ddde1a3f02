"""Servers that drip, hang, redirect in circles or hang up: a diagnosis has one deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.sources import diagnosis, open_source
from finedge.runtime.sources.address import split
from finedge.runtime.sources.diagnosis import reach, why_not_http, why_not_rtsp
from finedge.runtime.sources.login import may_log_in

Talk = Callable[[socket.socket], None]
SOON_S = 8.0  # far past the deadline of 0.6 s, far below what the drips would take
TIMEOUT_S = 0.6


@pytest.fixture
def requests() -> list[bytes]:
    """What the servers were sent, in order."""
    return []


@pytest.fixture
def server(requests: list[bytes]) -> Iterator[Callable[[Talk], int]]:
    """Start a server that does `talk` with every connection after its request came."""
    listeners: list[socket.socket] = []

    def start(talk: Talk) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                requests.append(connection.recv(4096))
                talk(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def drip(first: bytes, *, unit: bytes = b"a") -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            time.sleep(0.05)
            connection.sendall(unit)

    return talk


def answer_with(answer: bytes) -> Talk:
    return lambda connection: connection.sendall(answer)


def hang(connection: socket.socket) -> None:
    time.sleep(30)


CHALLENGE = b'401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n\r\n'
DRIPS = {
    "rtsp head": ("rtsp", drip(b"RTSP/1.0 200 OK\r\nX: ")),
    "rtsp body": ("rtsp", drip(b"RTSP/1.0 200 OK\r\nContent-Length: 60000\r\n\r\n")),
    "rtsp busy": ("rtsp", answer_with(b"RTSP/1.0 503 Busy\r\n\r\n")),
    "rtsp digest": ("rtsp", drip(b"RTSP/1.0 " + CHALLENGE)),
    "http head": ("http", drip(b"HTTP/1.1 404 No\r\nX: ")),
    "http line": ("http", drip(b"HTTP/1.1 ")),
    "http interim": ("http", drip(b"", unit=b"HTTP/1.1 100 Continue\r\n")),
    "http silence": ("http", hang),
    "rtsp silence": ("rtsp", hang),
    "tls drip": ("https", drip(b"\x16\x03\x03\x40\x00", unit=b"\x02")),
    "rtsps drip": ("rtsps", drip(b"\x16\x03\x03\x40\x00", unit=b"\x02")),
    "huge head": ("http", answer_with(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000)),
    "hang up": ("rtsp", answer_with(b"")),
    "binary": ("http", answer_with(bytes(range(256)) * 300)),
    "digest for ever": ("http", answer_with(b"HTTP/1.1 " + CHALLENGE)),
    "chunks": (
        "http",
        drip(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n",
            unit=b"1\r\na\r\n",
        ),
    ),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_diagnosis_has_one_deadline(name: str, server: Callable[[Talk], int]) -> None:
    scheme, talk = DRIPS[name]
    uri = f"{scheme}://me:S3CRET@127.0.0.1:{server(talk)}/x"
    ask = why_not_rtsp if scheme.startswith("rtsp") else why_not_http
    start = time.monotonic()
    problem = ask(uri, timeout_s=TIMEOUT_S)
    assert time.monotonic() - start < SOON_S
    assert isinstance(problem, SystemProblem)
    assert "S3CRET" not in str(problem)
    assert "127.0.0.1" in problem.what


def test_redirects_end(server: Callable[[Talk], int]) -> None:
    port = server(answer_with(b"HTTP/1.1 302 Found\r\nLocation: /next\r\n\r\n"))
    problem = why_not_http(f"http://127.0.0.1:{port}/", timeout_s=5)
    assert "leads from one address to the next" in problem.what


@pytest.mark.parametrize(
    "to", [b"file:///etc/passwd", b"http://[", b"http://:99999/", b"//\xff\xfe", b"http://x\x01y/"]
)
def test_a_redirect_to_no_address_is_reported(to: bytes, server: Callable[[Talk], int]) -> None:
    port = server(answer_with(b"HTTP/1.1 302 Found\r\nLocation: %b\r\n\r\n" % to))
    assert "127.0.0.1" in why_not_http(f"http://127.0.0.1:{port}/", timeout_s=TIMEOUT_S).what


NO_LOGIN = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n"


def test_a_password_goes_to_no_other_host(
    server: Callable[[Talk], int],
    requests: list[bytes],
) -> None:
    other = server(answer_with(NO_LOGIN))
    to_other = b"HTTP/1.1 302 Found\r\nLocation: http://localhost:%d/\r\n\r\n" % other
    first = server(answer_with(to_other))
    for ask in (why_not_http, open_refused):
        ask(f"http://me:S3CRET@127.0.0.1:{first}/", timeout_s=2)
    assert len(requests) >= 4
    assert not any(b"Authorization" in request for request in requests)


def open_refused(uri: str, *, timeout_s: float) -> None:
    with pytest.raises(SystemProblem):
        open_source(uri, timeout_s=timeout_s)


def test_a_password_goes_to_the_same_server_after_a_redirect(
    server: Callable[[Talk], int],
    requests: list[bytes],
) -> None:
    def moved(connection: socket.socket) -> None:
        first = requests[-1].startswith(b"GET / ")
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n" if first else NO_LOGIN)

    why_not_http(f"http://me:S3CRET@127.0.0.1:{server(moved)}/", timeout_s=2)
    logins = [b"Authorization: Basic" in request for request in requests]
    assert logins == [False, False, True]


@pytest.mark.parametrize(
    ("written", "target", "sent"),
    [
        ("http://me:S3CRET@cam/", "http://cam/live", True),
        ("http://me:S3CRET@cam/", "https://cam/", True),
        ("rtsp://me:S3CRET@cam/", "rtsp://cam:554/", True),
        ("https://me:S3CRET@cam/", "http://cam/", False),
        ("http://me:S3CRET@cam/", "http://cam:8080/", False),
        ("http://me:S3CRET@cam/", "https://cam:8443/", False),
        ("http://me:S3CRET@cam/", "http://cam.other/", False),
        ("http://cam/", "http://cam/", False),
    ],
)
def test_a_password_goes_to_the_origin_it_was_written_for(
    written: str,
    target: str,
    sent: bool,
) -> None:
    assert may_log_in(split(target), split(written)) is sent


def test_a_server_that_repeats_the_password_is_not_repeated(server: Callable[[Talk], int]) -> None:
    port = server(answer_with(b"RTSP/1.0 451 no S3CRET\x1b[2J\r\n\r\n"))
    text = str(why_not_rtsp(f"rtsp://me:S3CRET@127.0.0.1:{port}/x", timeout_s=TIMEOUT_S))
    assert "S3CRET" not in text
    assert "no ***\\x1b[2J" in text


def test_a_name_server_that_hangs_is_asked_once_and_blocks_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups, answer = [], threading.Event()

    def slow(*where: object, **_: object) -> list[object]:
        lookups.append(where)
        answer.wait(SOON_S)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(SystemProblem, match="no answer from"):
            reach("rtsp://slow-name.invalid/x", timeout_s=0.1)
    assert time.monotonic() - start < SOON_S / 2
    answer.set()
    assert len(lookups) == 1


def test_reconnecting_does_not_wait_for_the_reason_of_an_outage(
    server: Callable[[Talk], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "MAX_S", SOON_S)
    uri = f"rtsp://127.0.0.1:{server(hang)}/x"
    asking = threading.Thread(
        target=why_not_rtsp, args=(uri,), kwargs={"timeout_s": SOON_S}, daemon=True
    )
    asking.start()
    while uri not in diagnosis._inquiries:
        time.sleep(0.01)
    start = time.monotonic()
    for _ in range(3):
        assert "no answer within" in why_not_rtsp(uri, timeout_s=SOON_S).what
    assert time.monotonic() - start < SOON_S / 2
    assert sum(thread.name == "finedge-diagnosis" for thread in threading.enumerate()) >= 1
