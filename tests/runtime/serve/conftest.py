"""A server on a real socket that answers pictures with the tiny bundle."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from finedge.runtime.classifier import Classifier
from finedge.runtime.serve.access import AccessGate, parse_address
from finedge.runtime.serve.batcher import DEFAULT_BATCHES, Batcher, BatchLimits
from tests.runtime.conftest import FILES, BundleMaker

HAS_EXTRA = importlib.util.find_spec("uvicorn") is not None
collect_ignore_glob = [] if HAS_EXTRA else ["test_*.py"]
if HAS_EXTRA:
    from finedge.runtime.serve.app import create_app
    from finedge.runtime.serve.classify import DEFAULT_REQUESTS, ClassifyRoutes, RequestLimits
    from finedge.runtime.serve.server import WebServer


class SlowSession:
    """The real session, which answers only while `open` is set, and notes the batch sizes."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.info = inner, inner.info
        self.open = threading.Event()
        self.open.set()
        self.sizes: list[int] = []
        self.error: Exception | None = None

    def __call__(self, batch: NDArray[np.uint8]) -> Any:
        self.sizes.append(len(batch))
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return self.inner(batch)

    def close(self) -> None:
        self.inner.close()


@dataclass
class Served:
    """A server, and how to ask it."""

    server: WebServer
    batcher: Batcher
    session: SlowSession
    classifier: Classifier

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, Any]:
        """Return the answer and its JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get("Content-Type") == "application/json" and content
        return answer, json.loads(content) if is_json else content

    def classify(self, body: bytes, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of POST /classify."""
        answer, record = self.ask("POST", "/classify", body, **headers)
        return answer.status, record


@pytest.fixture(scope="module")
def open_classifier(
    tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Classifier]:
    """The tiny bundle, opened once."""
    folder = tmp_path_factory.mktemp("served")
    bundle = BundleMaker(folder, dict(tiny_files), folder)("tiny", files=(FILES["fp32"],), taps=())
    with Classifier.open(bundle, variant="fp32", backend="onnxruntime", threads=1) as classifier:
        yield classifier


@pytest.fixture
def start(open_classifier: Classifier) -> Iterator[Callable[..., Served]]:
    """Start servers with the limits and the token of a test; they are stopped after it."""
    opened: list[Served] = []

    def start_server(
        *,
        batches: BatchLimits = DEFAULT_BATCHES,
        requests: RequestLimits | None = None,
        token: str | None = None,
    ) -> Served:
        session = SlowSession(open_classifier.session)
        classifier = replace(open_classifier, session=session)
        batcher = Batcher(classifier, batches)
        routes = ClassifyRoutes(batcher, requests or DEFAULT_REQUESTS)
        app = create_app([*routes.routes(), routes.health()], AccessGate(token))
        server = WebServer(app, parse_address("127.0.0.1:0"))
        opened.append(Served(server, batcher, session, classifier))
        return opened[-1]

    yield start_server
    for served in opened:
        served.session.open.set()
        served.server.stop()
        served.batcher.close()


def encoded(image: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()
