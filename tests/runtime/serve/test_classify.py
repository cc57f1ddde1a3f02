"""What `POST /classify` answers, over real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from finedge.errors import FinedgeError, UsageError
from finedge.image.decode import decode
from finedge.runtime.serve.batcher import BatchLimits
from finedge.runtime.serve.classify import RequestLimits
from finedge.runtime.serve.rate import RateLimit
from tests.runtime.conftest import COLOURS, colour_frame
from tests.runtime.serve.conftest import Served, encoded

Start = Callable[..., Served]
TOKEN = "a-token-of-some-length_1"
PHOTO = encoded(colour_frame("red", seed=50), "JPEG")
BOUNDARY = "a-boundary"


def form(*files: bytes, name: str = "red.jpg") -> bytes:
    head = f'Content-Disposition: form-data; name="picture"; filename="{name}"'
    parts = [f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n" for file in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def as_form(served: Served, body: bytes) -> tuple[int, Any]:
    return served.classify(body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")


def answer_of(served: Served, file: bytes) -> list[dict[str, Any]]:
    """What the classifier itself says of a file."""
    (prediction,) = served.classifier([decode(file).image])
    return [{"index": t.index, "label": t.label, "p": round(t.p, 6)} for t in prediction.top]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_gets_the_line_of_classify(start: Start, kind: str) -> None:
    served = start()
    file = encoded(colour_frame("blue", seed=50, size=(300, 400)), kind)
    status, line = served.classify(file)
    assert (status, line["top"][0]["label"]) == (200, "blue")
    assert line["top"] == answer_of(served, file)
    assert list(line) == [
        "schema",
        "source",
        "frame",
        "captured_at",
        "age_ms",
        "status",
        "top",
        "ms",
        "variant",
        "backend",
        "file",
    ]
    assert (line["schema"], line["frame"], line["variant"]) == (1, 0, "fp32")
    assert all(ms >= 0 for ms in line["ms"].values())


def test_the_picture_may_be_the_file_of_a_form(start: Start) -> None:
    served = start()
    large = encoded(np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8))
    assert len(large) > 2**20
    for file, label in ((PHOTO, "red"), (large, "grey")):
        status, line = as_form(served, form(file))
        assert (status, line["source"], line["top"][0]["label"]) == (200, "red.jpg", label)
        assert line["top"] == answer_of(served, file)


def test_the_type_of_a_form_may_be_in_capitals(start: Start) -> None:
    kind = f"Multipart/Form-Data; Boundary={BOUNDARY}"
    status, line = start().classify(form(PHOTO), Content_Type=kind)
    assert (status, line["source"]) == (200, "red.jpg")


@pytest.mark.parametrize(
    "body", [form(), form(PHOTO, PHOTO), b"", PHOTO, form(PHOTO)[:40]], ids=str
)
def test_a_form_without_one_file_is_refused(start: Start, body: bytes) -> None:
    status, record = as_form(start(), body)
    assert (status, record["error"]["kind"]) == (400, "UsageError")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 415, "is empty"),
        (b"hello", 415, "not an image"),
        (b"%PDF-1.7 and more", 415, "PDF"),
        (PHOTO[: len(PHOTO) // 2], 422, "cut short"),
        (bytes(2**16 + 1), 413, "more than 65536 bytes"),
    ],
)
def test_what_is_no_picture_is_a_typed_error(
    start: Start, body: bytes, status: int, words: str
) -> None:
    served = start(requests=RequestLimits(max_mib=1 / 16))
    code, record = served.classify(body)
    assert (code, record["error"]["kind"]) == (status, "DataError")
    assert words in record["error"]["what"]
    assert served.classify(PHOTO)[0] == 200


def test_a_body_without_a_length_is_bounded_too(start: Start) -> None:
    served = start(requests=RequestLimits(max_mib=1 / 16))
    for chunks, status in (((PHOTO[:99], PHOTO[99:]), 200), ([bytes(9999)] * 9, 413)):
        assert served.classify(iter(chunks))[0] == status


def test_pictures_of_several_requests_are_one_batch(start: Start) -> None:
    served = start(batches=BatchLimits(batch=8, wait_ms=1000.0))
    files = [encoded(colour_frame(c, seed=50, size=(99, 77))) for c in list(COLOURS) * 2][:8]
    served.session.open.clear()
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(served.classify, file) for file in files]
        while served.ask("GET", "/healthz")[1]["in_hand"] < 8:
            pass
        served.session.open.set()
        lines = [answer.result()[1] for answer in answers]
    # The first did not wait: no other was on its way. The others waited for the model.
    assert max(served.session.sizes) > 1
    assert sum(served.session.sizes) == 8
    assert [line["top"] for line in lines] == [answer_of(served, file) for file in files]


def test_scores_of_a_batch_are_those_of_the_classifier(start: Start) -> None:
    classifier = start().classifier
    frames = [colour_frame(c, seed=9) for c in COLOURS]
    together = classifier.scores(classifier.prepare(frames))
    alone = [classifier.scores(classifier.prepare([frame]))[0] for frame in frames]
    assert np.array_equal(together, np.stack(alone))


def test_more_pictures_than_the_queue_holds_come_again_later(start: Start) -> None:
    served = start(batches=BatchLimits(batch=1, queue=3))
    served.session.open.clear()
    with ThreadPoolExecutor(3) as clients:
        held = [clients.submit(served.classify, PHOTO) for _ in range(3)]
        while served.ask("GET", "/healthz")[1]["in_hand"] < 3:
            pass
        answer, record = served.ask("POST", "/classify", PHOTO)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert record["error"]["kind"] == "SystemProblem"
        served.session.open.set()
        assert [future.result()[0] for future in held] == [200] * 3
    assert served.classify(PHOTO)[0] == 200


def test_an_address_that_asks_too_often_comes_again_later(start: Start) -> None:
    served = start(requests=RequestLimits(rate=0.01))
    assert served.classify(PHOTO)[0] == 200
    answer, _ = served.ask("POST", "/classify", PHOTO)
    assert answer.status == 429
    assert 90 <= int(answer.headers["Retry-After"]) <= 100


def test_a_bucket_fills_again_and_addresses_do_not_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("finedge.runtime.serve.rate.time.monotonic", lambda: now[0])
    limit = RateLimit(2.0)
    assert [limit.wait_s("a") for _ in range(3)] == [0, 0, 1]
    assert limit.wait_s("b") == 0
    now[0] = 0.5
    assert [limit.wait_s("a") for _ in range(2)] == [0, 1]
    assert not any(limit.wait_s(str(i)) for i in range(2000))
    assert len(limit._buckets) == 1024


def test_the_token_is_asked_for_and_never_repeated(start: Start) -> None:
    served = start(token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        answer, record = served.ask("POST", "/classify", PHOTO, **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert TOKEN not in str(record)
    assert served.classify(PHOTO, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.ask("GET", "/healthz")[0].status == 200
    assert served.ask("GET", "/model.json")[0].status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_is_refused(start: Start, headers: dict[str, str]) -> None:
    served = start()
    assert served.classify(PHOTO, **headers)[0] == 403
    own = f"http://127.0.0.1:{served.server.port}"
    assert served.classify(PHOTO, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200


def test_answers_do_not_wait_for_a_delayed_ack(start: Start) -> None:
    served = start()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        (connection,) = served.server._connections._open
        held = connection.transport.get_extra_info("socket")
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_unknown_paths_and_methods_are_json_errors(start: Start) -> None:
    served = start()
    answer, record = served.ask("GET", "/classify")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert (served.ask("GET", "/none")[0].status, list(record)) == (404, ["error"])
    page, _ = served.ask("GET", "/none", Accept="text/html,*/*")
    assert (page.status, page.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert page.headers["Content-Security-Policy"] == "default-src 'none'"


def test_a_model_that_fails_is_an_error_of_its_batch_only(start: Start) -> None:
    served = start()
    served.session.error = FinedgeError("the model returned scores that are not finite")
    status, record = served.classify(PHOTO)
    assert (status, "not finite" in record["error"]["what"]) == (500, True)
    served.session.error = RuntimeError("/home/me/secret")
    status, record = served.classify(PHOTO)
    assert (status, "secret" in str(record)) == (500, False)
    served.session.error = None
    assert served.classify(PHOTO)[0] == 200


def test_a_model_that_hangs_is_unhealthy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finedge.runtime.serve.classify.HANGS_S", 0.05)
    served = start()
    served.session.open.clear()
    with ThreadPoolExecutor(1) as clients:
        held = clients.submit(served.classify, PHOTO)
        while served.ask("GET", "/healthz")[0].status != 503:
            pass
        served.session.open.set()
        assert held.result()[0] == 200
    assert served.ask("GET", "/healthz")[0].status == 200


def test_a_stop_answers_what_is_in_hand(start: Start) -> None:
    served = start()
    served.session.open.clear()
    with ThreadPoolExecutor(1) as clients:
        held = clients.submit(served.classify, PHOTO)
        while not served.session.sizes:
            pass
        stop = threading.Thread(target=served.server.stop)
        stop.start()
        threading.Timer(0.3, served.session.open.set).start()
        stop.join()
        assert held.result()[0] == 200
    with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
        served.classify(PHOTO)


@pytest.mark.parametrize(
    "options",
    [{"batch": 0}, {"batch": 65, "queue": 64}, {"wait_ms": -1.0}, {"wait_ms": float("nan")}],
)
def test_limits_that_cannot_hold_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BatchLimits(**options)


@pytest.mark.parametrize("options", [{"max_mib": 0.0}, {"max_mib": 1e9}, {"rate": -1.0}])
def test_requests_that_cannot_be_limited_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RequestLimits(**options)
