"""The application: who may ask, which paths there are, and what a bug answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from finedge.errors import UsageError
from finedge.runtime.serve.access import AccessGate, bearer
from finedge.runtime.serve.answers import (
    SAFE,
    Refused,
    answer_bug,
    answer_http,
    answer_refused,
    refuse,
)

log = logging.getLogger(__name__)

HEALTH = "/healthz"
FOREIGN_NAME = Refused(
    403,
    UsageError(
        "another name of this machine",
        expected="127.0.0.1 or localhost: without a token only this machine is served",
    ),
)
FOREIGN_PAGE = Refused(
    403, UsageError("a page of another site asks", expected="a program, or a page of this server")
)
NO_TOKEN = Refused(
    401,
    UsageError(
        "no token, or a wrong one",
        expected="the header 'Authorization: Bearer TOKEN'; in a browser this address with "
        "/?token=TOKEN",
        fix="the program logged its token when it started, or --token gave it",
    ),
    headers={"WWW-Authenticate": "Bearer"},
)


def create_app(routes: Sequence[BaseRoute], gate: AccessGate) -> Any:
    """Return the ASGI application of some routes, for those whom the gate admits.

    `HEALTH` needs no token: a watchdog has none.
    """
    handlers: dict[Any, Any] = {
        Refused: answer_refused,
        HTTPException: answer_http,
        Exception: answer_bug,
    }
    app = Starlette(routes=list(routes), exception_handlers=handlers)
    app.router.redirect_slashes = False  # each path has one spelling
    return _Guard(app, gate)


class _Guard:
    """Asks the gate, adds the safe headers, and turns a bug into status 500."""

    def __init__(self, app: Any, gate: AccessGate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        log.debug("%s %s", request.method, request.scope["path"])  # the query may hold the token
        app = self._answer_first(request) or self._app

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await app(scope, receive, send_safely)
        except Exception as bug:  # starlette has answered 500, or the answer was on its way
            log.error("%s %s: %r", request.method, request.scope["path"], bug, exc_info=bug)

    def _answer_first(self, request: Request) -> Response | None:
        """Return what the gate answers, or None where the request may pass."""
        headers, port = request.headers, _port(request)
        if not self._gate.allows_host(headers):
            return refuse(request, FOREIGN_NAME)
        if request.method not in ("GET", "HEAD") and _is_foreign(request):
            return refuse(request, FOREIGN_PAGE)
        if request.scope["path"] == HEALTH:
            return None
        if request.scope["path"] == "/" and self._gate.accepts(
            request.query_params.get("token", "")
        ):
            return RedirectResponse("/", 303, {"Set-Cookie": self._gate.cookie(port)})
        if not self._gate.admits(headers, port=port) and not self._gate.accepts(bearer(headers)):
            return refuse(request, NO_TOKEN)
        connection = request.scope.get("finedge.connection")
        if self._gate.wants_token and connection is not None:
            connection.authorised = True
        return None


def _port(request: Request) -> int:
    server = request.scope.get("server") or ("", 0)
    return int(server[1] or 0)


def _is_foreign(request: Request) -> bool:
    """Tell whether a page of another site makes a browser ask; programs send neither header."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("Host")
