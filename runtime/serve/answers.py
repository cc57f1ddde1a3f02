"""What a client gets: the headers of every answer, and errors as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from finedge.errors import FinedgeError, UsageError

SAFE = {
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # a foreign page cannot show our picture
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):
    """A request that gets an error, with its HTTP status and the headers that go with it."""

    def __init__(
        self, status: int, error: FinedgeError, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error.what)
        self.status, self.error, self.headers = status, error, dict(headers or {})


def refuse(request: Request, refused: Refused) -> Response:
    """Return an error: text for a browser, else JSON with what, expected and fix."""
    error, status, headers = refused.error, refused.status, refused.headers
    if "text/html" in request.headers.get("Accept", ""):
        return PlainTextResponse(f"{error}\n", status, headers)
    return JSONResponse({"error": error_record(error)}, status, headers)


def error_record(error: FinedgeError) -> dict[str, Any]:
    """Return an error as plain data."""
    return {
        "kind": type(error).__name__,
        "what": error.what,
        "expected": error.expected,
        "fix": error.fix,
    }


async def answer_refused(request: Request, error: Exception) -> Response:
    """Handle `Refused` for starlette."""
    assert isinstance(error, Refused)
    return refuse(request, error)


async def answer_http(request: Request, error: Exception) -> Response:
    """Handle starlette's own errors: an unknown path or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:  # starlette joins a set
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    path = str(request.scope["path"])[:100]
    what = f"{request.method} {path}: {error.detail}"
    return refuse(request, Refused(error.status_code, UsageError(what), headers=headers))


async def answer_bug(request: Request, bug: Exception) -> Response:
    """Answer a bug without its text, which may hold anything."""
    error = FinedgeError("the server failed", fix="its log has the reason")
    return JSONResponse({"error": error_record(error)}, 500)
