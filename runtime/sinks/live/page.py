"""The live page as a sink: it takes results, and serves browsers in threads of its own."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from importlib.resources import files

from finedge.runtime.classifier import Classifier
from finedge.runtime.serve.access import AccessGate, choose_token, parse_address, url
from finedge.runtime.serve.app import create_app
from finedge.runtime.serve.batcher import Batcher, BatchLimits
from finedge.runtime.serve.classify import ClassifyRoutes
from finedge.runtime.serve.server import WebServer
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live.archive import Archive
from finedge.runtime.sinks.live.attention import CropAttention
from finedge.runtime.sinks.live.routes import PageRoutes
from finedge.runtime.sinks.live.state import LiveState, Reports
from finedge.runtime.sinks.live.visits import VisitLog

log = logging.getLogger(__name__)

# A picture of a request delays the frames of a camera by one inference at most.
BESIDE_CAMERAS = BatchLimits(batch=1, wait_ms=0.0, queue=16)


SCRIPTS = ("page.js", "numbers.js", "timeline.js")


class LivePage:
    """Serves the newest result and the newest visits to browsers; `write` never waits for one.

    `visits` is an `EventSink`.

    Args:
        address: HOST:PORT; port 0 lets the system choose.
        token: what every browser must show. None is no token on a loopback address; on any other
            address a random one is made and logged, once.
        title: the title of the page, for example the bundle's name.
        cameras: the names of the sources, in their order. Without them a tile has the "source" of
            its newest line.
        quiet_s: for how long a healthy run may give no result.
        classifier: answers `POST /classify` beside the page, and its bundle draws the attention of
            crops; its session is also called by the run, from another thread.
        archive: the visits that the store keeps.
        reports: says what became of the events, by sink.
        metrics: the counts for Prometheus, for `/metrics`.

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
        classifier: Classifier | None = None,
        archive: Archive | None = None,
        reports: Reports = dict,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        endpoint = parse_address(address)
        secret, is_random = choose_token(token, endpoint)
        gate = AccessGate(secret)
        html, policy = load_page()
        self._attention = None if classifier is None else CropAttention.of(classifier)
        self._state = LiveState(
            title, cameras=cameras, quiet_s=quiet_s, attention=self._attention, reports=reports
        )
        self.visits = VisitLog(archive)
        page = PageRoutes(
            self._state,
            self.visits,
            html=html,
            policy=policy,
            attention=self._attention,
            metrics=metrics,
        )
        routes = page.routes()
        self._batcher = None if classifier is None else Batcher(classifier, BESIDE_CAMERAS)
        if self._batcher is not None:
            routes += ClassifyRoutes(self._batcher).routes()
        self._server = WebServer(create_app(routes, gate), endpoint)
        self.url = url(endpoint.host, self._server.port)
        log.info("live page: %s%s", self.url, f"?token={secret}" if is_random else "")

    @property
    def clients(self) -> int:
        """The connections being served."""
        return self._server.clients

    def write(self, result: Result) -> None:
        """Take a result, and the visits that began or ended with it."""
        self._state.write(result)
        for event in result.events:
            self.visits.write(event)

    def close(self) -> None:
        """Close the port and every connection, in bounded time."""
        if self._attention is not None:
            self._attention.close()  # first: what waits for a drawing ends now
        self._server.stop()
        if self._batcher is not None:
            self._batcher.close()


def load_page() -> tuple[bytes, str]:
    """Return the page as UTF-8, and its Content-Security-Policy.

    It is one file: page.html with its style and its scripts inside. The policy allows these, by
    their digests, and nothing else.
    """
    folder = files("finedge.runtime.sinks.live")
    text, style = (folder.joinpath(f"page.{end}").read_text("utf-8") for end in ("html", "css"))
    script = "\n".join(folder.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    text = text.replace("/* page.css */", f"\n{style}").replace("// page.js", f"\n{script}")
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
