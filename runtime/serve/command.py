"""`finedge serve`: answers pictures over HTTP until it is stopped."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.serve.access import AccessGate, choose_token, given_token, parse_address, url
from finedge.runtime.serve.app import create_app
from finedge.runtime.serve.batcher import DEFAULT_BATCHES, Batcher, BatchLimits
from finedge.runtime.serve.classify import DEFAULT_REQUESTS, ClassifyRoutes, RequestLimits
from finedge.runtime.serve.connections import Deadlines
from finedge.runtime.serve.server import WebServer
from finedge.runtime.stream.shutdown import exit_after_signal, stop_on_signals

log = logging.getLogger(__name__)

DEADLINES = Deadlines(answer_s=60.0)  # a full queue on a slow board takes that long


def serve(
    bundle: Positional[Path],
    *,
    address: str = "127.0.0.1:8080",
    token: str | None = None,
    variant: str = "auto",
    backend: str = "auto",
    topk: int = 5,
    threads: int | None = None,
    batches: OmitArgPrefixes[BatchLimits] = DEFAULT_BATCHES,
    requests: OmitArgPrefixes[RequestLimits] = DEFAULT_REQUESTS,
) -> None:
    """Answer pictures over HTTP: POST /classify gives the line of `finedge classify`.

    The body is the picture itself, or a multipart form with one file. Pictures of several requests
    that are there at the same time go through the model together. GET /model.json says what runs,
    GET /healthz whether it works. Ctrl-C or SIGTERM answers what is in hand, and ends.

    Args:
        bundle: the bundle to run.
        address: HOST:PORT. Any other machine can ask only with the token.
        token: what a client must show, in the header `Authorization: Bearer TOKEN`. Without it, any
            address but this machine's own gets a random one, which is logged. FINEDGE_TOKEN in the
            environment does the same and does not show in the process list.
        variant: fp32, fp16 or int8; auto is the one that `finedge choose` names.
        backend: a backend, or auto for the first that runs on this machine.
        topk: how many labels a line holds.
        threads: CPU threads of the model; without it the physical cores.
        batches: how pictures form batches.
        requests: what a client may ask.
    """
    endpoint = parse_address(address)
    secret, is_random = choose_token(given_token(token), endpoint)
    gate = AccessGate(secret)
    loaded, stopped = Bundle.load(bundle), threading.Event()
    with exit_after_signal(), ExitStack() as exits:
        classifier = exits.enter_context(
            Classifier.open(loaded, variant=variant, backend=backend, topk=topk, threads=threads)
        )
        batcher = Batcher(classifier, batches)
        exits.callback(batcher.close)
        routes = ClassifyRoutes(batcher, requests)
        app = create_app([*routes.routes(), routes.health()], gate)
        server = WebServer(app, endpoint, limit=2 * batches.queue, deadlines=DEADLINES)
        exits.callback(server.stop)
        place = url(server.host, server.port)
        log.info("POST %sclassify%s", place, f", token {secret}" if is_random else "")
        with stop_on_signals(stopped.set):
            while not stopped.wait(1.0):
                pass
    raise KeyboardInterrupt
