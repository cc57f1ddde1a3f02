"""A web server in a thread: uvicorn on an address, with bounded connections."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import Any

import uvicorn

from finedge.errors import SystemProblem
from finedge.runtime.serve.access import Address
from finedge.runtime.serve.connections import (
    DEFAULT_DEADLINES,
    MAX_CLIENTS,
    Connection,
    Connections,
    Deadlines,
)

BACKLOG = 64
GRACE_S = 2  # for the answers in hand, once the server is stopped
JOIN_S = GRACE_S + 2.0


class WebServer:
    """Serves an ASGI application in a daemon thread, from now until `stop`.

    Args:
        app: the application.
        address: where; port 0 lets the system choose.
        limit: connections at a time.
        deadlines: of each phase of a request.

    Raises:
        SystemProblem: the address is in use, not this machine's, or not allowed.
    """

    def __init__(
        self,
        app: Any,
        address: Address,
        *,
        limit: int = MAX_CLIENTS,
        deadlines: Deadlines = DEFAULT_DEADLINES,
    ) -> None:
        listener = _listen(address)
        self.host, self.port = address.host, int(listener.getsockname()[1])
        self._connections = Connections(limit=limit, deadlines=deadlines)
        self._server = _Server(_config(app, self._connections), self._connections)
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [listener]},
            name="finedge-serve",
            daemon=True,
        )
        self._thread.start()

    @property
    def clients(self) -> int:
        """The connections being served."""
        return len(self._connections)

    def stop(self) -> None:
        """Close the port, answer what is in hand within `GRACE_S`, and end every connection."""
        self._server.should_exit = True
        self._thread.join(JOIN_S)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._all = connections

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._all.abort()  # those that do not take their answer
        await asyncio.sleep(0)


def _config(app: Any, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=type("Connection", (Connection,), {"places": connections}),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        # uvicorn warns of every malformed request. The application logs its own errors.
        log_level="critical",
        access_log=False,
        server_header=False,
        headers=[("Server", "finedge")],
        backlog=BACKLOG,
        timeout_keep_alive=3600,  # `Deadlines.head_s` is the limit
        timeout_graceful_shutdown=GRACE_S,
    )


def _listen(address: Address) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is named. Without it, each answer of two
    # segments waits for a delayed ACK: 44 ms, measured.
    listener = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        fix = "choose an address of this machine, and a port above 1023"
        if error.errno == errno.EADDRINUSE:
            fix = "stop the other program, or choose another port"
        raise SystemProblem(
            f"{address.host} port {address.port} cannot be served: {error.strerror}", fix=fix
        ) from error
    return listener
