"""Connections to servers: name, route, TLS and every later wait end by one deadline."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult

from finedge.runtime.sources.address import port_of

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
_lookups: dict[tuple[str, int], _Lookup] = {}


class Deadline:
    """A moment after which every wait ends."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._at = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds until then.

        Raises:
            TimeoutError: it is past.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {self.seconds:g} s")
        return left

    def sleep(self, seconds: float) -> None:
        """Wait, but not past it."""
        time.sleep(min(seconds, self.left()))


class Line:
    """A connection whose waits are bounded: by the deadline, later perhaps by a time each.

    `reader` buffers what came. `cut` ends the connection from any thread, also a waiting read.
    """

    def __init__(self, connection: socket.socket, *, deadline: Deadline) -> None:
        self._socket, self._limit = connection, deadline.left
        self.reader = io.BufferedReader(_Incoming(self))

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reader.close()

    def each_wait(self, seconds: float) -> None:
        """Bound each later wait by `seconds`; the deadline is met."""
        self._limit = lambda: seconds

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(self._limit())
        self._socket.sendall(data)

    def receive_into(self, buffer: Any) -> int:
        """Fill a buffer with what has come, waiting for something; 0 at the end."""
        self._socket.settimeout(self._limit())
        return self._socket.recv_into(buffer)

    def makefile(self, *_: object) -> io.BufferedReader[_Incoming]:
        """Return the reader: what `http.client` asks of a socket."""
        return self.reader

    def cut(self) -> None:
        """End the connection; reading sees the end of it."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # past TLS, which would wait

    def close(self) -> None:
        """Free the connection; only for the thread that reads."""
        self._socket.close()


class _Incoming(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._line.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._line.close()
        super().close()


def connected(parts: SplitResult, *, deadline: Deadline) -> socket.socket:
    """Connect to the host of an address.

    Raises:
        OSError: no name, no route, nothing that listens, or no answer in time.
    """
    error: OSError = OSError("the name has no address")
    for family, address in _resolve(str(parts.hostname), port_of(parts), deadline=deadline):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
        except OSError as failed:
            connection.close()
            error = failed
        else:
            return connection
    raise error


def dial(parts: SplitResult, *, deadline: Deadline) -> Line:
    """Connect, over TLS where the scheme says so; raises as `connected` does."""
    connection = connected(parts, deadline=deadline)
    if parts.scheme not in ("rtsps", "https"):
        return Line(connection, deadline=deadline)
    try:
        connection.settimeout(deadline.left())  # of the handshake as a whole
        secure = _unverified().wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise
    return Line(secure, deadline=deadline)


class _Lookup(threading.Thread):
    """The system's resolver has no time-out of its own: it is waited for while there is time."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="finedge-lookup", daemon=True)
        self._where = host, port
        self.addresses: list[Address] = []
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            entries = socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM)
            self.addresses = [(family, address) for family, _, _, _, address in entries]
        except OSError as error:
            self.error = error
        except UnicodeError:
            self.error = socket.gaierror("no name of a host")


def _resolve(host: str, port: int, *, deadline: Deadline) -> list[Address]:
    lookup = _lookups.get((host, port))
    if lookup is None or not lookup.is_alive():  # a lookup that hangs is not asked for twice
        lookup = _lookups[host, port] = _Lookup(host, port)
    lookup.join(deadline.left())
    if lookup.is_alive():
        raise TimeoutError(f"the name server gave no answer for {host}")
    _lookups.pop((host, port), None)
    if lookup.error is not None:
        raise lookup.error
    return lookup.addresses


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
