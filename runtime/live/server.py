"""A web server that no browser can hold up: a bounded number of threads, a deadline for every request and every answer."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.live.address import Address

log = logging.getLogger(__name__)

MOST_CLIENTS = 32
DEADLINE_S = 10.0  # for a whole request (also the time an idle connection is kept), and again for its whole answer
CLOSE_S = 2.0
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedServer(socketserver.ThreadingTCPServer):
    """Serves at most `MOST_CLIENTS` connections at a time, each in a daemon thread; one more is answered 503 at once."""

    daemon_threads = True
    block_on_close = False  # joined by `stop`, in bounded time
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = address.family
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((address.host, address.port), handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            fix = "stop the other program, or choose another port" if taken else "choose an address of this machine, and a port above 1023"
            raise SystemProblem(f"{address.host} port {address.port} cannot be served: {error.strerror}", fix=fix) from error
        self._acceptor = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="finedge-live", daemon=True)
        self._acceptor.start()

    @property
    def clients(self) -> int:
        """The connections being served."""
        return len(self._clients)

    def stop(self) -> None:
        """Close the port and every connection; returns within about `CLOSE_S`, whatever the browsers do."""
        self.shutdown()
        self.server_close()
        with self._lock:
            clients = dict(self._clients)
        for connection in clients:
            _hang_up(connection)
        until = time.monotonic() + CLOSE_S
        for thread in [self._acceptor, *clients.values()]:
            thread.join(max(0.0, until - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or refuse it."""
        if not self._free.acquire(blocking=False):
            _refuse(request)
            self.shutdown_request(request)
            return
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="finedge-live-client", daemon=True)
        with self._lock:
            self._clients[request] = thread
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._forget(request)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong with a connection; a browser that leaves is no error."""
        error = sys.exc_info()[1]
        log.log(logging.DEBUG if isinstance(error, OSError) else logging.WARNING, "live page: %s: %r", client_address[0], error)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            del self._clients[request]
        self._free.release()


class BoundedHandler(BaseHTTPRequestHandler):
    """A request handler whose client has `DEADLINE_S` to send a request, and the server as long to send its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Put the deadline between the socket and the parser."""
        super().setup()
        self._timed = _TimedReader(self.connection)
        self.rfile = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        """Read and answer one request, or let the connection go."""
        self._timed.until = time.monotonic() + DEADLINE_S
        super().handle_one_request()

    def send(self, body: bytes) -> None:
        """End the headers and send the body (but not to HEAD) within `DEADLINE_S`, else raise TimeoutError."""
        self.connection.settimeout(DEADLINE_S)  # of each sendall as a whole
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _TimedReader(io.RawIOBase):
    """Reads of a socket up to a moment: a client that sends a byte a second does not get more time with each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.until = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole request in time")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def _refuse(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(0.0)  # the accepting thread waits for nobody
        connection.send(FULL)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it went first
        connection.shutdown(socket.SHUT_RDWR)
