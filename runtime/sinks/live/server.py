"""A web server that no client can block: bounded threads, a deadline for every request."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.serve.access import Address

log = logging.getLogger(__name__)

MAX_CLIENTS = 32
# For a whole request, which is also how long an idle connection is kept, and again for its whole
# answer.
DEADLINE_S = 10.0
# A connection that does not take its answer for so long loses its place to a new one.
STUCK_S = 2.0
MAX_REQUEST = 2**17  # bytes, with what is read ahead
CLOSE_S = 2.0
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass
class Client:
    """A connection: whether a request is waited for, and since when.

    `authorised`: it has shown that it may see the page. `leaving`: it lost its place.
    """

    thread: threading.Thread
    host: str
    number: int
    waiting: bool = True
    authorised: bool = False
    leaving: bool = False
    since: float = field(default_factory=time.monotonic)

    def now(self, *, waiting: bool) -> None:
        """Note that a request is waited for, or answered from now on."""
        self.waiting, self.since = waiting, time.monotonic()


class BoundedServer(socketserver.ThreadingTCPServer):
    """Serves at most `MAX_CLIENTS` connections at a time, each in a daemon thread.

    One more takes the place of one that is idle: of the address with the most connections, the
    oldest without a request, else one that does not take its answer. Where all are at work, the
    new one is answered 503 at once.
    """

    daemon_threads = True
    block_on_close = False  # `stop` joins the threads, in bounded time
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = address.family
        self._clients: dict[socket.socket, Client] = {}
        self._lock, self._numbers = threading.Lock(), itertools.count()
        try:
            super().__init__((address.host, address.port), handler)
        except OSError as error:
            fix = "choose an address of this machine, and a port above 1023"
            if error.errno == errno.EADDRINUSE:
                fix = "stop the other program, or choose another port"
            raise SystemProblem(
                f"{address.host} port {address.port} cannot be served: {error.strerror}", fix=fix
            ) from error
        self._acceptor = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="finedge-live",
            daemon=True,
        )
        self._acceptor.start()

    @property
    def clients(self) -> int:
        """The connections being served."""
        return len(self._clients)

    def client(self, connection: socket.socket) -> Client | None:
        """Return the state of a connection."""
        return self._clients.get(connection)

    def stop(self) -> None:
        """Close the port and every connection, within about `CLOSE_S`, whatever browsers do."""
        self.shutdown()
        self.server_close()
        with self._lock:
            clients = dict(self._clients)
        for connection in clients:
            _hang_up(connection)
        until = time.monotonic() + CLOSE_S
        for thread in [self._acceptor, *(client.thread for client in clients.values())]:
            thread.join(max(0.0, until - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, if need be in another's place, or refuse it."""
        thread = threading.Thread(
            target=self._serve,
            args=(request, client_address),
            name="finedge-live-client",
            daemon=True,
        )
        with self._lock:
            has_place = self._make_place()
            if has_place:
                self._clients[request] = Client(thread, str(client_address[0]), next(self._numbers))
        if not has_place:
            _refuse(request)
            self.shutdown_request(request)
            return
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._forget(request)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a connection; a browser that leaves is not one."""
        error = sys.exc_info()[1]
        log.log(
            logging.DEBUG if isinstance(error, OSError) else logging.WARNING,
            "live page: %s: %r",
            client_address[0],
            error,
        )

    def _make_place(self) -> bool:
        """Tell whether there is a place; if need be, an idle connection loses its own."""
        staying = {
            connection: client for connection, client in self._clients.items() if not client.leaving
        }
        if len(staying) < MAX_CLIENTS:
            return True
        # Too many threads have not yet noticed that they must end.
        if len(self._clients) >= 2 * MAX_CLIENTS:
            return False
        victim = _least_needed(staying)
        if victim is None:
            return False
        staying[victim].leaving = True
        _hang_up(victim)
        return True

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            del self._clients[request]


class BoundedHandler(BaseHTTPRequestHandler):
    """A request handler with a deadline.

    A client has `DEADLINE_S` to send a request, and as long again to take the answer.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BoundedServer

    def setup(self) -> None:
        """Put the deadline between the socket and the parser."""
        super().setup()
        self._timed = _TimedReader(self.connection)
        self.rfile = io.BufferedReader(self._timed)
        self._client = self.server.client(self.connection)

    def handle_one_request(self) -> None:
        """Read and answer one request, or let the connection go."""
        self._timed.until, self._timed.left = time.monotonic() + DEADLINE_S, MAX_REQUEST
        if self._client is not None:
            self._client.now(waiting=True)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the headers; from here on the connection is at work."""
        # An answer of HTTP/0.9 has no status and no headers.
        whole = super().parse_request() and self.request_version != "HTTP/0.9"
        if self._client is not None:
            self._client.now(waiting=False)
        return whole

    def note_authorised(self) -> None:
        """Prefer this connection to those that have not shown that they may see the page."""
        if self._client is not None:
            self._client.authorised = True

    def send(self, body: bytes) -> None:
        """End the headers and send the body, but not to HEAD.

        Raises:
            TimeoutError: the client did not take it within `DEADLINE_S`.
        """
        self.connection.settimeout(DEADLINE_S)  # of each sendall as a whole
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _least_needed(clients: Mapping[socket.socket, Client]) -> socket.socket | None:
    """Return the connection that loses its place, or None where each is at work."""
    now = time.monotonic()
    idle = [c for c, client in clients.items() if client.waiting and not client.authorised]
    stuck = [
        c
        for c, client in clients.items()
        if not client.waiting and not client.authorised and now - client.since > STUCK_S
    ]
    quiet = [c for c, client in clients.items() if client.waiting]
    for group in (idle, stuck, quiet):
        if group:
            connections = Counter(clients[c].host for c in group)
            return min(group, key=lambda c: (-connections[clients[c].host], clients[c].number))
    return None


class _TimedReader(io.RawIOBase):
    """Reads a socket up to a deadline, which a client that sends a byte a second cannot extend."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.until, self.left = 0.0, MAX_REQUEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole request in time")
        if self.left <= 0:
            raise TimeoutError("the request does not end")
        self._connection.settimeout(left)
        read = self._connection.recv_into(buffer)
        self.left -= read
        return read


def _refuse(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(0.0)  # the accepting thread waits for nobody
        connection.send(FULL)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it went first
        connection.shutdown(socket.SHUT_RDWR)
