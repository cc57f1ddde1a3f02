"""Web cameras, with MJPEG and with still images: whole images only, however slow they come."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from finedge.errors import SourceLost, SystemProblem
from finedge.image import decode_image
from finedge.runtime.sources import CaptureOptions, open_source
from finedge.runtime.sources.multipart import MultipartParser

RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8)
JPEG = cv2.imencode(".jpg", cv2.resize(SMALL, (64, 48), interpolation=cv2.INTER_CUBIC))[1].tobytes()
HALF = JPEG[: len(JPEG) // 2]
GENEROUS_S = 10.0
Answer = Callable[[Any], None]
Serve = Callable[[Answer], "Camera"]


class Camera(http.server.ThreadingHTTPServer):
    """Answers every request as `answer` does; `requests` holds the time of each."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.requests, self.stopped = list[float](), threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.requests.append(time.monotonic())  # type: ignore[attr-defined]
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a reader may leave at any time

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cam"


@pytest.fixture
def camera() -> Iterator[Serve]:
    cameras: list[Camera] = []

    def start(answer: Answer) -> Camera:
        cameras.append(Camera(answer))
        return cameras[-1]

    yield start
    for each in cameras:
        each.stopped.set()
        each.shutdown()
        each.server_close()


def begin(handler: Any, kind: str, *headers: tuple[str, str]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()


def mjpeg(*pictures: bytes, pause_s: float = 0.02, length: bool = True) -> Answer:
    """Send the pictures again and again."""

    def answer(handler: Any) -> None:
        begin(handler, 'multipart/x-mixed-replace; boundary="--cut"')
        while True:
            for picture in pictures:
                length_line = b"Content-Length: %d\r\n" % len(picture) if length else b""
                handler.wfile.write(
                    b"--cut\r\nContent-Type: image/jpeg\r\n"
                    + length_line
                    + b"\r\n"
                    + picture
                    + b"\r\n"
                )
                if handler.server.stopped.wait(pause_s):
                    return

    return answer


def still(picture: bytes, *headers: tuple[str, str]) -> Answer:
    def answer(handler: Any) -> None:
        begin(handler, "image/jpeg", *headers)
        handler.wfile.write(picture)

    return answer


def test_half_images_are_left_out_and_whole_ones_between_them_come(camera: Serve) -> None:
    with open_source(camera(mjpeg(HALF, JPEG, HALF)).uri) as source:
        frames = list(islice(source, 5))
    whole = decode_image(np.frombuffer(JPEG, np.uint8))
    assert all(np.array_equal(frame.image, whole) for frame in frames)


def test_a_stream_of_half_images_is_refused_as_half_a_file_is(
    camera: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finedge.runtime.sources.ffmpeg.OPEN_TIMEOUT_S", 0.5)
    with pytest.raises(
        SystemProblem, match=r"none of the \d+ pictures of 0.5 s can be read: the last is cut short"
    ):
        open_source(camera(mjpeg(HALF)).uri, timeout_s=0.5)


def test_pictures_that_come_slower_than_the_time_out_are_delivered(camera: Serve) -> None:
    server = camera(mjpeg(JPEG, pause_s=60.0, length=False))
    with open_source(server.uri, timeout_s=0.3) as source:
        frames = list(islice(source, 3))
    assert len(frames) == 3
    assert len(server.requests) >= 3  # a new connection for each


def test_a_picture_without_a_length_is_not_held_back_for_the_next(camera: Serve) -> None:
    start = time.monotonic()
    with open_source(camera(mjpeg(JPEG, pause_s=60.0, length=False)).uri, timeout_s=30.0) as source:
        next(iter(source))
    assert time.monotonic() - start < GENEROUS_S


@pytest.mark.parametrize("headers", [(), (("Content-Length", str(len(JPEG))),)])
def test_a_still_address_is_one_live_source(
    headers: tuple[tuple[str, str], ...], camera: Serve
) -> None:
    server = camera(still(JPEG, *headers))
    with open_source(server.uri, capture=CaptureOptions(fps=20)) as source:
        frames = list(islice(source, 3))
    assert source.live
    assert source.info.kind == "http"
    assert (source.info.width, source.info.height) == (64, 48)
    assert len(server.requests) == 3
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_a_still_that_is_cut_short_is_refused(
    camera: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finedge.runtime.sources.ffmpeg.OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(SystemProblem, match="can be read: the last is cut short"):
        open_source(camera(still(HALF)).uri, capture=CaptureOptions(fps=20), timeout_s=0.3)


def test_stills_are_turned_and_scaled(camera: Serve) -> None:
    with open_source(
        camera(still(JPEG)).uri, capture=CaptureOptions(width=32, height=16, flip=1)
    ) as source:
        assert next(iter(source)).image.shape == (32, 16, 3)


def test_close_ends_a_reader_that_waits_for_a_silent_camera(camera: Serve) -> None:
    source = open_source(camera(mjpeg(JPEG, pause_s=60.0)).uri, timeout_s=60.0)
    frames: list[Any] = []
    reader = threading.Thread(target=lambda: frames.extend(source), daemon=True)
    reader.start()
    while not frames and reader.is_alive():
        time.sleep(0.005)
    source.close()  # type: ignore[attr-defined]
    reader.join(GENEROUS_S)
    assert not reader.is_alive()
    assert len(frames) == 1


def test_a_camera_that_ends_its_sequence_is_lost(camera: Serve) -> None:
    def answer(handler: Any) -> None:
        begin(handler, "multipart/x-mixed-replace; boundary=cut")
        handler.wfile.write(
            b"--cut\r\nContent-Length: %d\r\n\r\n%s\r\n--cut--\r\n" % (len(JPEG), JPEG)
        )

    with (
        open_source(camera(answer).uri, reconnect=False) as source,
        pytest.raises(SourceLost, match="was ended by the other side"),
    ):
        list(source)


@pytest.mark.parametrize("qop", ["", ', qop="auth,auth-int"'])
def test_a_camera_that_wants_a_digest_gets_it(qop: str, camera: Serve) -> None:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    def answer(handler: Any) -> None:
        fields = dict(re.findall(r'(\w+)="?([^",]*)', handler.headers["Authorization"] or ""))
        counted = f"{fields.get('nc')}:{fields.get('cnonce')}:auth:" if qop else ""
        question = f"n1:{counted}{md5('GET:/cam')}"
        if fields.get("response") == md5(f"{md5('me:yard:s3cr@t')}:{question}"):
            still(JPEG)(handler)
            return
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", f'Digest realm="yard", nonce="n1"{qop}')
        handler.end_headers()

    with open_source(camera(answer).uri.replace("//", "//me:s3cr%40t@")) as source:
        assert next(iter(source)).image.shape == (48, 64, 3)


def test_a_page_around_the_image_is_reported(camera: Serve) -> None:
    def answer(handler: Any) -> None:
        begin(handler, "text/html")
        handler.wfile.write(b"<html>camera</html>")

    with pytest.raises(SystemProblem, match="answers with text/html"):
        open_source(camera(answer).uri, timeout_s=1)


# --- the parts of an answer ---


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize("boundary", ["cut", ""])
@pytest.mark.parametrize(
    "form",
    [
        b"--cut\r\nContent-Length: %d\r\n\r\n%s\r\n",
        b"--cut\nContent-Type: image/jpeg\ncontent-length:%d\n\n%s\n",
    ],
)
def test_parts_are_split_whatever_the_pieces(size: int, boundary: str, form: bytes) -> None:
    pictures = [JPEG, HALF, b"", JPEG + b"\r\n--cu"]
    data = b"".join(form % (len(picture), picture) for picture in pictures)
    parser = MultipartParser(boundary)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert [body for piece in pieces for body in parser.feed(piece)] == pictures


def test_a_part_without_a_length_ends_at_its_picture_or_the_next_part() -> None:
    parser = MultipartParser("cut")
    thumbnail = b"\xff\xe1" + (len(JPEG) + 2).to_bytes(2, "big") + JPEG  # an end mark inside
    picture = JPEG[:2] + thumbnail + JPEG[2:]
    assert parser.feed(b"--cut\r\n\r\n" + picture[: len(thumbnail) + 2]) == []
    assert parser.feed(picture[len(thumbnail) + 2 :]) == [picture]
    assert parser.feed(b"\r\n--cut\r\n\r\n" + HALF) == []
    assert parser.feed(b"\r\n--cut\r\n\r\n") == [HALF + b"\r\n"]


def test_a_body_without_parts_or_an_oversized_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no parts"):
        MultipartParser("").feed(b"GIF89a\n")
    with pytest.raises(ValueError, match="a part has 999999999 bytes"):
        MultipartParser("cut").feed(b"--cut\r\nContent-Length: 999999999\r\n\r\n")
    parser = MultipartParser("cut")
    assert parser.feed(b"--cut\r\nContent-Length: 2\r\n\r\nab\r\n--cut--\r\n") == [b"ab"]
    assert parser.ended


def test_a_part_that_never_ends_is_refused() -> None:
    parser = MultipartParser("cut")
    parser.feed(b"--cut\r\n\r\n")
    with pytest.raises(ValueError, match="more than"):
        parser.feed(bytes(65 << 20))
