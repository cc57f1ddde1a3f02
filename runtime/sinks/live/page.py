"""The live page as a sink: it takes results, and serves browsers in its own threads."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
from collections.abc import Sequence
from importlib.resources import files

from finedge.runtime.serve.access import AccessGate, parse_address, url
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.routes import Routes, Site
from finedge.runtime.sinks.live.server import BoundedServer
from finedge.runtime.sinks.live.state import LiveState

log = logging.getLogger(__name__)


class LivePage:
    """Serves the newest result to browsers; `write` never waits for one.

    Args:
        address: HOST:PORT; port 0 lets the system choose.
        token: what every browser must show. None is no token on a loopback address; on any other
            address a random one is made and logged, once.
        title: the title of the page, for example the bundle's name.
        cameras: the names of the sources, in their order. Without them a tile has the "source" of
            its newest line.
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
        endpoint = parse_address(address)
        random_token = None
        if token is None and not endpoint.loopback:
            token = random_token = secrets.token_urlsafe(32)
        html, policy = load_page()
        self._state = LiveState(title, cameras=cameras, quiet_s=quiet_s)
        site = Site(self._state, AccessGate(token), html, policy)
        self._server = BoundedServer(endpoint, type("Routes", (Routes,), {"site": site}))
        self.url = url(endpoint.host, int(self._server.server_address[1]))
        log.info("live page: %s%s", self.url, f"?token={random_token}" if random_token else "")

    @property
    def clients(self) -> int:
        """The connections being served."""
        return self._server.clients

    def write(self, result: Result) -> None:
        """Take a result; browsers see the newest one."""
        self._state.write(result)

    def close(self) -> None:
        """Close the port and every connection, in bounded time."""
        self._server.stop()


def load_page() -> tuple[bytes, str]:
    """Return page.html as UTF-8, and its Content-Security-Policy.

    The policy allows the page's one style and one script, by their digests, and nothing else.
    """
    text = files("finedge.runtime.sinks.live").joinpath("page.html").read_text("utf-8")
    rules = (
        "default-src 'none'",
        f"style-src {_digest(text, 'style')}",
        f"script-src {_digest(text, 'script')}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return text.encode(), "; ".join(rules)


def _digest(text: str, tag: str) -> str:
    (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
