"""What the page asks for: itself, all numbers, the newest picture, and the health of the run."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from finedge.errors import UsageError
from finedge.runtime.serve.answers import Refused
from finedge.runtime.serve.app import HEALTH
from finedge.runtime.sinks.live.camera import CameraState
from finedge.runtime.sinks.live.state import LiveState
from finedge.runtime.sinks.live.visits import VisitLog

SILENT_S = 10.0  # /healthz answers 503 once the newest line of any camera is overdue by this
JSON = "application/json"


class PageRoutes:
    """Answers six paths.

    `/` is the page, `/state.json` all numbers, `/frame.jpg?camera=0&after=12` the newest picture
    with its answer, `/visits.json?after=12&run=...` the visits that changed, `/crop.jpg?id=...` the
    best crop of one, `/healthz` the health of the pipeline for a watchdog. starlette runs each
    answer in a thread, because a picture is encoded for it.

    Args:
        state: what the page shows of cameras and the machine.
        visits: what it shows of visits.
        html: the page.
        policy: its Content-Security-Policy.
    """

    def __init__(self, state: LiveState, visits: VisitLog, *, html: bytes, policy: str) -> None:
        self._state, self._visits = state, visits
        self._html, self._policy = html, policy

    def routes(self) -> list[Route]:
        """Return the routes."""
        answers = {
            "/": self._page,
            "/state.json": self._numbers,
            "/frame.jpg": self._frame,
            "/visits.json": self._changed_visits,
            "/crop.jpg": self._crop,
            HEALTH: self._health,
        }
        return [Route(path, answer, methods=["GET"]) for path, answer in answers.items()]

    def _page(self, request: Request) -> Response:
        return HTMLResponse(self._html, headers={"Content-Security-Policy": self._policy})

    def _numbers(self, request: Request) -> Response:
        return Response(self._state.to_json(), media_type=JSON)

    def _frame(self, request: Request) -> Response:
        camera, after = self._camera(request), whole_number(request, "after")
        if camera is None or after is None:
            raise _unknown_camera()
        picture = camera.picture(after=after)
        if picture is None:
            return Response(status_code=204)
        facts = {
            "X-Finedge-Number": str(picture.number),
            "X-Finedge-Answer": picture.answer,
            "X-Finedge-Age-Ms": f"{1e3 * (time.monotonic() - picture.taken_at):.0f}",
        }
        return Response(picture.jpeg, headers=facts, media_type="image/jpeg")

    def _changed_visits(self, request: Request) -> Response:
        after = whole_number(request, "after")
        run = request.query_params.get("run", "")
        return Response(self._visits.to_json(after=after or 0, run=run), media_type=JSON)

    def _crop(self, request: Request) -> Response:
        jpeg = self._visits.crop(request.query_params.get("id", ""))
        if not jpeg:
            raise Refused(404, UsageError("no such visit", expected="/crop.jpg?id=ID of a visit"))
        return Response(jpeg, media_type="image/jpeg")

    def _camera(self, request: Request) -> CameraState | None:
        cameras, number = self._state.cameras, whole_number(request, "camera")
        return cameras[number] if number is not None and number < len(cameras) else None

    def _health(self, request: Request) -> Response:
        silent = self._state.silent_s()
        ok = silent is not None and silent < self._state.quiet_s + SILENT_S
        health = {"ok": ok, "silent_s": None if silent is None else round(silent, 1)}
        return JSONResponse(health, 200 if ok else 503)


def whole_number(request: Request, name: str) -> int | None:
    """Return a parameter of the address as a whole number; 0 without it, None for nonsense."""
    text = request.query_params.get(name, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _unknown_camera() -> Refused:
    error = UsageError(
        "no such camera, or no number of a picture",
        expected="/frame.jpg?camera=0&after=0: the number of a camera, and that of the newest "
        "picture you have",
    )
    return Refused(404, error)
