from __future__ import annotations

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from finedge.runtime.sources import tcp
from finedge.runtime.sources.deadline import Deadline


def test_an_address_that_leads_nowhere_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as exits:
        mute, good = (exits.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "ab")
        mute.listen(0)
        for _ in range(4):  # its queue is full: a further connection waits without an answer
            waiting = exits.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(mute.getsockname())
        addresses = [(socket.AF_INET, place.getsockname()) for place in (mute, good)]
        monkeypatch.setattr(tcp, "_resolve", lambda *_, **__: addresses)
        connection = tcp.open_socket(urlsplit("http://two.example/"), deadline=Deadline(2.0))
        exits.enter_context(connection)
        assert connection.getpeername() == good.getsockname()
