"""`POST /classify`: a picture in, the line of `finedge classify` out."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from finedge.errors import DataError, FinedgeError, SystemProblem, UsageError
from finedge.image import SUFFIXES, Unreadable
from finedge.image.decode import decode
from finedge.image.formats import is_known
from finedge.runtime.machine.cpu import owned_cores
from finedge.runtime.serve.answers import Refused
from finedge.runtime.serve.app import HEALTH
from finedge.runtime.serve.batcher import Batcher, Prepared
from finedge.runtime.serve.body import read_picture
from finedge.runtime.serve.rate import RateLimit

HANGS_S = 10.0  # a batch that takes so long is a model that hangs


@dataclass(frozen=True)
class RequestLimits:
    """What a client may ask.

    Attributes:
        max_mib: the largest body, in MiB.
        rate: pictures a second of one address; 0 is no limit.
    """

    max_mib: float = 16.0
    rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.max_mib <= 1024:
            raise UsageError(f"--max-mib {self.max_mib:g}", expected="more than 0, at most 1024")
        if not 0 <= self.rate <= 1e6:
            raise UsageError(f"--rate {self.rate:g}", expected="pictures a second; 0 is no limit")

    @property
    def max_bytes(self) -> int:
        """The largest body in bytes."""
        return int(self.max_mib * 2**20)


DEFAULT_REQUESTS = RequestLimits()


class ClassifyRoutes:
    """The routes that answer pictures.

    At most `BatchLimits.queue` pictures are in hand at a time, from the first byte of the body to
    the answer. That bounds memory: `queue` bodies, and one decoded picture for each core.
    """

    def __init__(self, batcher: Batcher, limits: RequestLimits = DEFAULT_REQUESTS) -> None:
        self._batcher, self._limits = batcher, limits
        self._rate = RateLimit(limits.rate)
        self._in_hand = 0
        self._cores: anyio.CapacityLimiter | None = None

    def routes(self) -> list[Route]:
        """Return `POST /classify` and the model's facts."""
        return [
            Route("/classify", self.classify, methods=["POST"]),
            Route("/model.json", self.model, methods=["GET"]),
        ]

    def health(self) -> Route:
        """Return the health of the model, for a server without a camera."""
        return Route(HEALTH, self._health, methods=["GET"])

    async def classify(self, request: Request) -> Response:
        """Answer the picture in the body.

        Status 200 has the classify line. 400: a form without one file. 413: the body is too large.
        415: no image of a supported format. 422: an image that is incomplete or too large.
        429: too many pictures; Retry-After says when.
        """
        self._refuse_if_busy(request)
        self._in_hand += 1
        try:
            future = await self._submitted(request)
            line = await asyncio.wrap_future(future)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except FinedgeError as error:  # of the model
            raise Refused(500, error) from error
        finally:
            self._in_hand -= 1
        return JSONResponse(line)

    async def model(self, request: Request) -> Response:
        """Answer what runs, and the limits."""
        classifier, limits = self._batcher.classifier, self._batcher.limits
        info = classifier.session.info
        facts: dict[str, Any] = {
            "bundle": classifier.bundle.name,
            "labels": list(classifier.bundle.spec.labels),
            "variant": classifier.variant,
            "backend": info.backend,
            "device": info.device,
            "file": info.file,
            "precision": info.precision,
            "limits": {**vars(self._limits), **vars(limits)},
        }
        return JSONResponse(facts)

    def _refuse_if_busy(self, request: Request) -> None:
        if self._in_hand >= self._batcher.limits.queue:
            raise _too_many(f"{self._in_hand} pictures are in hand", wait_s=1)
        host = request.client.host if request.client else ""
        if wait_s := self._rate.wait_s(host):
            raise _too_many(f"more than {self._limits.rate:g} pictures a second", wait_s=wait_s)

    async def _submitted(self, request: Request) -> Future[dict[str, Any]]:
        self._batcher.coming += 1
        try:
            name, body = await read_picture(request, limit=self._limits.max_bytes)
            picture = await self._in_thread(name, body, time.monotonic_ns())
        finally:
            self._batcher.coming -= 1  # before it is submitted, or it would wait for itself
        return self._batcher.submit(picture)

    async def _in_thread(self, name: str, body: bytes, received_ns: int) -> Prepared:
        # Made here: a limiter belongs to the running event loop.
        self._cores = self._cores or anyio.CapacityLimiter(owned_cores())
        return await anyio.to_thread.run_sync(
            self._prepare, name, body, received_ns, limiter=self._cores
        )

    def _prepare(self, name: str, body: bytes, received_ns: int) -> Prepared:
        start = time.perf_counter()
        try:
            image = decode(body).image
        except Unreadable as error:
            status = 422 if is_known(body) else 415
            kinds = ", ".join(sorted(SUFFIXES))
            what = DataError(f"{name} {error}", expected=f"a complete picture: {kinds}")
            raise Refused(status, what) from error
        decoded = time.perf_counter()
        (pixels,) = self._batcher.classifier.prepare([image])
        prepared = time.perf_counter()
        return Prepared(
            name,
            received_ns,
            pixels,
            decode_ms=1e3 * (decoded - start),
            preprocess_ms=1e3 * (prepared - decoded),
        )

    async def _health(self, request: Request) -> Response:
        busy_s = self._batcher.busy_s()
        facts = {"ok": busy_s < HANGS_S, "in_hand": self._in_hand, "busy_s": round(busy_s, 1)}
        return JSONResponse(facts, 200 if facts["ok"] else 503)


def _too_many(what: str, *, wait_s: int) -> Refused:
    error = SystemProblem(what, fix=f"send it again in {wait_s} s")
    return Refused(429, error, headers={"Retry-After": str(wait_s)})
