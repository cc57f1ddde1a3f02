"""Connections that no client can hold: bounded in number, with a deadline for each phase."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CLIENTS = 32
# A connection that is at work for so long, and has not shown the token, may lose its place.
STUCK_S = 2.0
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True)
class Deadlines:
    """The seconds that a client has for each phase of a request.

    Attributes:
        head_s: to send the head of a request. An idle connection is kept for as long.
        body_s: to send the body.
        answer_s: to get the whole answer, with the work on it.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    answer_s: float = 30.0


DEFAULT_DEADLINES = Deadlines()


class Connections:
    """The open connections of one server, at most `limit`. Only its event loop changes them.

    One more takes the place of one that is idle: of the address with the most connections, the
    oldest without a request, else one that does not get on with it. Where all are at work, the new
    one is refused.
    """

    def __init__(
        self, *, limit: int = MAX_CLIENTS, deadlines: Deadlines = DEFAULT_DEADLINES
    ) -> None:
        self.deadlines, self._limit = deadlines, limit
        self._open: set[Connection] = set()
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Give a connection a place, if need be that of another; tell whether it got one."""
        if len(self._open) >= self._limit:
            victim = least_needed(self._open)
            if victim is None:
                return False
            self.leave(victim)
            victim.transport.abort()
        connection.number = next(self._numbers)
        self._open.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Free the place of a connection."""
        self._open.discard(connection)

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self._open):
            connection.transport.abort()


class Connection(H11Protocol):
    """One connection: HTTP/1.1 by h11, with a deadline that bytes one by one do not extend.

    The scope of its requests has it as "finedge.connection".
    """

    places: ClassVar[Connections]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        inner = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["finedge.connection"] = self
            await inner(scope, receive, send)

        self.app = app
        self.number, self.since = 0, time.monotonic()
        self.phase, self.authorised = "", False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def host(self) -> str:
        """The address of the client."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or answer 503."""
        super().connection_made(transport)
        if self.places.admit(self):
            self._note_phase()
        else:
            transport.write(FULL)
            transport.close()
            self._start_timer(self.places.deadlines.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        self._stop_timer()
        self.places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a new phase has a new deadline."""
        super().data_received(data)
        self._note_phase()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what was asked before the client closed its half, and then end."""
        if self.phase != "answer":
            return False
        self.cycle.keep_alive = False
        return True

    def on_response_complete(self) -> None:
        """Begin with the next request, which may be there already."""
        self.phase = ""
        super().on_response_complete()
        self._note_phase()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request; an answer that is being made goes nowhere."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # the answer to HEAD has no body
            self.transport.close()

    def _note_phase(self) -> None:
        phase = self._current_phase()
        if phase == self.phase:
            return
        self.phase, self.since = phase, time.monotonic()
        self._start_timer(getattr(self.places.deadlines, f"{phase}_s"))

    def _current_phase(self) -> str:
        if self.cycle is None or self.cycle.response_complete:
            return "head"
        return "body" if self.conn.their_state is h11.SEND_BODY else "answer"

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def least_needed(connections: Collection[Connection]) -> Connection | None:
    """Return the connection that loses its place, or None where each is at work."""
    now = time.monotonic()
    quiet = [c for c in connections if c.phase == "head"]
    idle = [c for c in quiet if not c.authorised]
    stuck = [
        c for c in connections if c.phase != "head" and not c.authorised and now - c.since > STUCK_S
    ]
    for group in (idle, stuck, quiet):
        if group:
            counts = Counter(c.host for c in group)
            return min(group, key=lambda c: (-counts[c.host], c.number))
    return None
