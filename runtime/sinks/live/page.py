"""The live page as a sink: results in, browsers served beside."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.address import parse_address, url
from finedge.runtime.sinks.live.board import Board
from finedge.runtime.sinks.live.document import load_document
from finedge.runtime.sinks.live.gate import Gate
from finedge.runtime.sinks.live.routes import Routes, Site
from finedge.runtime.sinks.live.server import BoundedServer

log = logging.getLogger(__name__)


class LivePage:
    """Serves the newest result to browsers from threads of its own; `write` never waits for one.

    Args:
        address: HOST:PORT; port 0 lets the system choose.
        token: asked of every browser. None is no token on a loopback address; on any other one is made and logged, once.
        title: what the page calls itself, the bundle's name for one.
        cameras: what the sources are called, in their order; without it, a tile is called by the "source" of its newest line.
        quiet_s: for how long a healthy run may give no result.

    Raises:
        UsageError: the address or the token has the wrong form.
        SystemProblem: the address is in use, not this machine's, or not allowed.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        title: str = "finedge",
        cameras: Sequence[str] = (),
        quiet_s: float = 0.0,
    ) -> None:
        where = parse_address(address)
        made = None if token is not None or where.loopback else secrets.token_urlsafe(32)
        self._board = Board(title, cameras=cameras, quiet_s=quiet_s)
        site = Site(self._board, Gate(made if token is None else token), load_document())
        self._server = BoundedServer(where, type("Routes", (Routes,), {"site": site}))
        self.url = url(where.host, int(self._server.server_address[1]))
        log.info("live page: %s%s", self.url, f"?token={made}" if made else "")

    @property
    def clients(self) -> int:
        """The connections being served."""
        return self._server.clients

    def write(self, result: Result) -> None:
        """Take a result; the newest one is what browsers see."""
        self._board.write(result)

    def close(self) -> None:
        """Close the port and hang up on every browser, in bounded time."""
        self._server.stop()
