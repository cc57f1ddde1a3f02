"""What the server answers: four fixed paths to GET and HEAD.

Its headers keep other pages out.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import parse_qsl

from finedge.runtime.serve.access import AccessGate
from finedge.runtime.sinks.live.camera import CameraState
from finedge.runtime.sinks.live.server import BoundedHandler
from finedge.runtime.sinks.live.state import LiveState

log = logging.getLogger(__name__)

MAX_QUERY = 500
SILENT_S = 10.0  # /healthz answers 503 once the newest line of any camera is overdue by this
SAFE = {
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # a foreign page cannot show our picture
    "Cross-Origin-Opener-Policy": "same-origin",
}
TEXT, JSON, HTML = "text/plain; charset=utf-8", "application/json", "text/html; charset=utf-8"


@dataclass(frozen=True)
class Site:
    """What the routes need; `policy` is the Content-Security-Policy of the page."""

    state: LiveState
    gate: AccessGate
    html: bytes
    policy: str


class Routes(BoundedHandler):
    """Answers four paths.

    `/` is the page, `/state.json` all numbers, `/frame.jpg?camera=0&after=12` the newest picture
    with its answer, `/healthz` the health of the pipeline for a watchdog.
    """

    site: ClassVar[Site]

    def do_GET(self) -> None:  # noqa: N802 (named by the standard library)
        """Answer a request, after the checks of the gate."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # its body would be read as the next request
        path, _, text = self.path.partition("?")
        query = dict(parse_qsl(text[:MAX_QUERY]))
        if not self.site.gate.allows_host(self.headers):
            self._say(
                HTTPStatus.FORBIDDEN,
                "This page is served under the names of this machine only (127.0.0.1, localhost).",
            )
        elif path == "/healthz":
            self._healthz()
        elif path == "/" and self.site.gate.accepts(query.get("token", "")):
            self._answer(
                HTTPStatus.SEE_OTHER,
                b"",
                Location="/",
                Set_Cookie=self.site.gate.cookie(self._port),
            )
        elif not self.site.gate.admits(self.headers, port=self._port):
            self._say(
                HTTPStatus.UNAUTHORIZED,
                "Open this address with /?token=TOKEN. "
                "The program logged its token when it started, or --token gave it.",
            )
        else:
            if self.site.gate.wants_token:
                self.note_authorised()
            self._serve(path, query)

    do_HEAD = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error code, without repeating any of the request."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, b"", Allow="GET, HEAD", Connection="close")
        else:
            self._answer(HTTPStatus(code), b"", Connection="close")

    def version_string(self) -> str:
        """Return no version: nobody needs it."""
        return "finedge"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log the path without its query, which may hold the token."""
        log.debug(
            "live page: %s %s %s",
            self.client_address[0],
            getattr(self, "path", "").partition("?")[0],
            code,
        )

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing else: the standard library's messages hold the request line."""

    @property
    def _port(self) -> int:
        return int(self.connection.getsockname()[1])

    def _serve(self, path: str, query: dict[str, str]) -> None:
        if path == "/":
            self._answer(
                HTTPStatus.OK,
                self.site.html,
                type_=HTML,
                Content_Security_Policy=self.site.policy,
            )
        elif path == "/state.json":
            self._answer(HTTPStatus.OK, self.site.state.to_json(), type_=JSON)
        elif path == "/frame.jpg":
            self._frame(query)
        else:
            self._say(
                HTTPStatus.NOT_FOUND, "The paths are /, /state.json, /frame.jpg and /healthz."
            )

    def _frame(self, query: dict[str, str]) -> None:
        camera, after = self._camera(query), _whole(query.get("after", "0"))
        if camera is None or after is None:
            self._say(
                HTTPStatus.NOT_FOUND,
                "/frame.jpg?camera=0&after=0 takes the number of a camera, "
                "and that of the newest picture you have.",
            )
        elif (picture := camera.picture(after=after)) is None:
            self._answer(HTTPStatus.NO_CONTENT, b"")
        else:
            facts = {
                "X_Finedge_Number": str(picture.number),
                "X_Finedge_Answer": picture.answer,
                "X_Finedge_Age_Ms": f"{1e3 * (time.monotonic() - picture.taken_at):.0f}",
            }
            self._answer(HTTPStatus.OK, picture.jpeg, type_="image/jpeg", **facts)

    def _camera(self, query: dict[str, str]) -> CameraState | None:
        cameras, number = self.site.state.cameras, _whole(query.get("camera", "0"))
        return cameras[number] if number is not None and number < len(cameras) else None

    def _healthz(self) -> None:
        silent = self.site.state.silent_s()
        ok = silent is not None and silent < self.site.state.quiet_s + SILENT_S
        health = {"ok": ok, "silent_s": None if silent is None else round(silent, 1)}
        self._answer(
            HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE,
            json.dumps(health).encode(),
            type_=JSON,
        )

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, f"{text}\n".encode())

    def _answer(
        self, status: HTTPStatus, body: bytes, *, type_: str = TEXT, **headers: str
    ) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if status != HTTPStatus.NO_CONTENT:
            named |= {"Content-Type": type_, "Content-Length": str(len(body))}
        for name, value in (SAFE | named).items():
            self.send_header(name, value)
        self.send(body)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
