"""TCP connections to servers: name, route, TLS and every later wait end by one deadline."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult

from finedge.runtime.sources.address import port_of
from finedge.runtime.sources.deadline import Deadline

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
_lookups: dict[tuple[str, int], _Lookup] = {}


class TcpConnection:
    """A TCP or TLS connection whose waits are bounded by a deadline, later by a time each.

    `reader` buffers what came. `cut` ends the connection from any thread, and with it a read that
    waits.
    """

    def __init__(self, connection: socket.socket, *, deadline: Deadline) -> None:
        self._socket, self._limit = connection, deadline.left
        self.reader = io.BufferedReader(_SocketReader(self))

    def __enter__(self) -> TcpConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reader.close()

    def limit_each_wait(self, seconds: float) -> None:
        """Bound each later wait by `seconds`, in place of the deadline."""
        self._limit = lambda: seconds

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(self._limit())
        self._socket.sendall(data)

    def receive_into(self, buffer: Any) -> int:
        """Wait for bytes and put them into a buffer. Return their count, 0 at the end."""
        self._socket.settimeout(self._limit())
        return self._socket.recv_into(buffer)

    def makefile(self, *_: object) -> io.BufferedReader[_SocketReader]:
        """Return the reader: `http.client` calls this method of a socket."""
        return self.reader

    def cut(self) -> None:
        """End the connection. Reading sees its end."""
        with suppress(OSError):
            # Not the method of a TLS socket, which would wait for the other side.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the connection. Only the thread that reads may call it."""
        self._socket.close()


class _SocketReader(io.RawIOBase):
    def __init__(self, connection: TcpConnection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._connection.close()
        super().close()


def open_socket(parts: SplitResult, *, deadline: Deadline) -> socket.socket:
    """Return a socket that is connected to the host of an address.

    Raises:
        OSError: no such name, no route, nothing that listens, or no answer in time.
    """
    last_error: OSError = OSError("the name has no address")
    addresses = _resolve(str(parts.hostname), port_of(parts), deadline=deadline)
    for number, (family, address) in enumerate(addresses):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # The first may be of IPv6 and lead nowhere: the others get their part of the time.
            connection.settimeout(deadline.left() / (len(addresses) - number))
            connection.connect(address)
        except OSError as error:
            connection.close()
            last_error = error
        else:
            return connection
    raise last_error


def connect(
    parts: SplitResult, *, deadline: Deadline, context: ssl.SSLContext | None = None
) -> TcpConnection:
    """Connect to the host of an address, over TLS for rtsps and https.

    `context` is of TLS; without it every certificate is accepted.

    Raises:
        OSError: as of `open_socket`, or no TLS.
    """
    connection = open_socket(parts, deadline=deadline)
    if parts.scheme not in ("rtsps", "https"):
        return TcpConnection(connection, deadline=deadline)
    try:
        connection.settimeout(deadline.left())  # of the whole handshake
        secure = (context or _unverified()).wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise
    return TcpConnection(secure, deadline=deadline)


class _Lookup(threading.Thread):
    """A look-up of a name. The resolver of the system has no time-out, so a thread runs it."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="finedge-lookup", daemon=True)
        self._host, self._port = host, port
        self.addresses: list[Address] = []
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            entries = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self.addresses = [(family, address) for family, _, _, _, address in entries]
        except OSError as error:
            self.error = error
        except UnicodeError:
            self.error = socket.gaierror("not a valid host name")


def _resolve(host: str, port: int, *, deadline: Deadline) -> list[Address]:
    lookup = _lookups.get((host, port))
    if lookup is None or not lookup.is_alive():  # a look-up that hangs is not started twice
        lookup = _lookups[host, port] = _Lookup(host, port)
    lookup.join(deadline.left())
    if lookup.is_alive():
        raise TimeoutError(f"the name server gave no answer for {host}")
    _lookups.pop((host, port), None)
    if lookup.error is not None:
        raise lookup.error
    return lookup.addresses


def _unverified() -> ssl.SSLContext:
    """Return a context that accepts every certificate.

    Cameras sign their own certificates, and FFmpeg does not verify them either.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
