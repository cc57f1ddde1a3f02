"""Malformed requests to the live page: one answer each or a closed connection, and no warning."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from finedge.runtime.sinks.live.page import LivePage

TOKEN = "a-token-of-some-length_1"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
GOOD = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /state.json HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nCookie: a=b; finedge-1=x\r\n\r\n",
    b"HEAD /frame.jpg?camera=0&after=12 HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\n\r\n",
    b"GET /?token=a-token-of-some-length_2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /",
    b"POST /state.json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nGET /\r\n0\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n",
]
NOISE = st.binary(max_size=60) | st.sampled_from(
    [
        *(b"\0", b"\r\n", b"\n", b"\r", b" ", b":", b"\xff", b"\r\n Folded: x", b"%00", b"/../"),
        *(b"HTTP/0.9", b"HTTP/1.1.1", b"HTTP/-1.1", b"a" * 70_000, b"X: y\r\n" * 120, b"?" * 600),
        *(b"Host: evil\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1, 2\r\n"),
        b"Connection: keep-alive\r\n",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return valid requests in a row, with pieces removed and noise inserted."""
    sent = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at, cut = draw(st.integers(0, len(sent))), draw(st.integers(0, 20))
        sent = sent[:at] + draw(NOISE) + sent[at + cut :]
    return sent


def talk(page: LivePage, sent: bytes) -> bytes:
    """Return all that the page answers."""
    port = int(page.url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # it may close before all was sent
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                answer += part
    return answer


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], LivePage]]:
    monkeypatch.setattr("finedge.runtime.sinks.live.state.MachineState.read", lambda self: {})
    opened: list[LivePage] = []

    def open_with(token: str | None) -> LivePage:
        opened.append(LivePage("127.0.0.1:0", token=token, title="birds", cameras=("rtsp://cam/",)))
        return opened[-1]

    yield open_with
    for page in opened:
        page.close()


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("examples", [100, pytest.param(3_000, marks=pytest.mark.slow)])
def test_no_request_breaks_the_page_or_opens_it(
    examples: int,
    token: str | None,
    open_page: Callable[[str | None], LivePage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = open_page(token)

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(requests())
    def check(sent: bytes) -> None:
        answer = talk(page, sent)
        assert answer == b"" or STATUS.match(answer)
        assert all(
            status == b"100" or int(status) in range(200, 506) for status in STATUS.findall(answer)
        )
        assert not (token and b'"cameras"' in answer)

    check()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_valid_requests_are_answered(open_page: Callable[[str | None], LivePage]) -> None:
    page = open_page(None)
    statuses = [STATUS.findall(talk(page, sent).removeprefix(CONTINUE))[0] for sent in GOOD]
    assert statuses == [b"200", b"200", b"204", b"403", b"403", b"403", b"404"]
