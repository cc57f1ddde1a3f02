"""What the page asks for: itself, all numbers, the newest picture, and the health of the run."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from finedge.errors import FinedgeError, SystemProblem, UsageError
from finedge.runtime.events.metrics import HEADERS as METRICS_HEADERS
from finedge.runtime.events.metrics import PATH as METRICS
from finedge.runtime.serve.answers import Refused
from finedge.runtime.serve.app import HEALTH
from finedge.runtime.sinks.live.attention import CropAttention
from finedge.runtime.sinks.live.camera import CameraState
from finedge.runtime.sinks.live.state import LiveState
from finedge.runtime.sinks.live.visits import VisitLog

SILENT_S = 10.0  # /healthz answers 503 once the newest line of any camera is overdue by this
JSON = "application/json"


class PageRoutes:
    """Answers the paths of the page.

    starlette runs each answer in a thread: a picture is encoded for it, or a file is read.

    | path | what it answers |
    | --- | --- |
    | `/` | the page |
    | `/state.json` | all numbers |
    | `/frame.jpg?camera=0&after=12` | the newest picture with its answer |
    | `/visits.json?after=12&run=...` | the visits that changed |
    | `/older.json?before=1780000000.5&camera=0&label=...` | earlier ones, from the store |
    | `/crop.jpg?id=...` | the best crop of a visit |
    | `/attention.jpg?id=...` | that crop, with the model's attention |
    | `/metrics` | counts for Prometheus, where they are counted |
    | `/healthz` | the health of the pipeline, for a watchdog |

    Args:
        state: what the page shows of cameras and the machine.
        visits: what it shows of visits.
        html: the page.
        policy: its Content-Security-Policy.
        attention: draws the attention of crops.
        metrics: the counts in Prometheus's text format.
    """

    def __init__(
        self,
        state: LiveState,
        visits: VisitLog,
        *,
        html: bytes,
        policy: str,
        attention: CropAttention | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        self._state, self._visits = state, visits
        self._html, self._policy = html, policy
        self._attention, self._metrics = attention, metrics

    def routes(self) -> list[Route]:
        """Return the routes."""
        answers = {
            "/": self._page,
            "/state.json": self._numbers,
            "/frame.jpg": self._frame,
            "/visits.json": self._changed_visits,
            "/older.json": self._older_visits,
            "/crop.jpg": self._crop,
            "/attention.jpg": self._drawn,
            METRICS: self._counts,
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

    def _older_visits(self, request: Request) -> Response:
        query = request.query_params
        camera = whole_number(request, "camera") if "camera" in query else None
        try:
            before = float(query.get("before", ""))
        except ValueError:
            error = UsageError(
                "no time", expected="/older.json?before=SECONDS since 1970, of the oldest you have"
            )
            raise Refused(400, error) from None
        visits = self._visits.older(before=before, camera=camera, label=query.get("label"))
        return Response(visits, media_type=JSON)

    def _crop(self, request: Request) -> Response:
        return Response(self._crop_of(request), media_type="image/jpeg")

    def _drawn(self, request: Request) -> Response:
        if self._attention is None:
            error = UsageError("this bundle has no map", expected="a bundle that explain can show")
            raise Refused(404, error)
        crop = self._crop_of(request)
        try:
            jpeg = self._attention(crop)
        except SystemProblem as problem:
            raise Refused(503, problem, headers={"Retry-After": "1"}) from problem
        except FinedgeError as error:
            raise Refused(500, error) from error
        return Response(jpeg, media_type="image/jpeg")

    def _crop_of(self, request: Request) -> bytes:
        jpeg = self._visits.crop(request.query_params.get("id", ""))
        if not jpeg:
            path = request.scope["path"]
            raise Refused(404, UsageError("no such visit", expected=f"{path}?id=ID of a visit"))
        return jpeg

    def _counts(self, request: Request) -> Response:
        if self._metrics is None:
            raise Refused(404, UsageError("nothing is counted here", expected="finedge classify"))
        try:
            return Response(self._metrics(), headers=METRICS_HEADERS)
        except SystemProblem as problem:
            raise Refused(501, problem) from problem

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
