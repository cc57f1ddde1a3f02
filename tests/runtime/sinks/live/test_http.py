"""What the server answers, over real connections."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finedge.errors import FinedgeError, SystemProblem, UsageError
from finedge.runtime.sinks.base import Result
from finedge.runtime.sinks.live import camera, routes
from finedge.runtime.sinks.live import state as live_state
from finedge.runtime.sinks.live.page import LivePage

Serve, Make = Callable[..., LivePage], Callable[..., Result]
TOKEN = "a-token-of-some-length_1"


def ask(
    page: LivePage, path: str, *, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port(page), timeout=30)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def port(page: LivePage) -> int:
    return int(re.findall(r":(\d+)/$", page.url)[0])


def state(page: LivePage) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(ask(page, "/state.json")[1])
    return numbers


def test_the_newest_result_is_served_with_its_numbers(serve: Serve, result: Make) -> None:
    page = serve(title="birds")
    for index in (0, 1, 4):
        page.write(result(index))
    (camera_state,) = state(page)["cameras"]
    counts = {"captured": 5, "classified": 3, "dropped": 2, "silences": 0}
    assert {key: camera_state[key] for key in counts} == counts
    assert (camera_state["status"], camera_state["name"]) == ("ok", "test://")
    assert (camera_state["variant"], camera_state["backend"], camera_state["file"]) == (
        "int8",
        "onnxruntime",
        "model.int8.cpu.onnx",
    )
    assert camera_state["picture_age_ms"] >= 40  # from capture, not from the answer
    assert [
        camera_state["latency"][stage]["n"]
        for stage in ("age", "decode", "preprocess", "infer", "post")
    ] == [3] * 5
    assert state(page)["title"] == "birds"


def test_a_picture_comes_with_its_own_answer(serve: Serve, result: Make) -> None:
    page = serve()
    sent = result(7, size=(1200, 1920))
    page.write(sent)
    answer, body = ask(page, "/frame.jpg")
    picture = Image.open(io.BytesIO(body))
    assert (answer.status, picture.format, picture.size) == (200, "JPEG", (960, 600))
    answer_json = json.loads(answer.headers["X-Finedge-Answer"])
    assert (answer_json["frame"], answer_json["status"]) == (7, "ok")
    assert answer_json["top"][0] == {"label": "a bird", "p": 0.8}
    assert float(answer.headers["X-Finedge-Age-Ms"]) >= 40


def test_colours_are_not_swapped(serve: Serve, result: Make) -> None:
    page, red = serve(), np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 255
    page.write(Result(result(0).record, red))
    r, g, b = Image.open(io.BytesIO(ask(page, "/frame.jpg")[1])).convert("RGB").getpixel((30, 20))
    assert r > 240
    assert max(g, b) < 15


def test_a_picture_already_held_is_not_sent_again_and_is_encoded_once(
    serve: Serve, result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    original = camera.to_jpeg
    monkeypatch.setattr(camera, "to_jpeg", lambda image: encoded.append(1) or original(image))
    page = serve()
    assert ask(page, "/frame.jpg")[0].status == 204
    page.write(result(0))
    numbers = {ask(page, "/frame.jpg")[0].headers["X-Finedge-Number"] for _ in range(5)}
    assert numbers == {"1"}
    assert ask(page, "/frame.jpg?after=1")[0].status == 204
    assert len(encoded) == 1


def test_many_frames_cost_no_more_pictures_than_the_limit(
    serve: Serve, result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "PICTURES_PER_S", 1e-6)
    page = serve()
    numbers = set()
    for index in range(20):
        page.write(result(index))
        numbers.add(ask(page, "/frame.jpg")[0].headers["X-Finedge-Number"])
    assert numbers == {"1"}


def test_a_silence_keeps_the_picture_but_not_its_status(serve: Serve, result: Make) -> None:
    page = serve()
    page.write(result(0))
    for _ in range(3):
        page.write(result(status="no_signal"))
    (camera_state,) = state(page)["cameras"]
    assert (camera_state["status"], camera_state["silences"], camera_state["classified"]) == (
        "no_signal",
        1,
        1,
    )
    assert ask(page, "/frame.jpg")[0].status == 200
    for status in ("ok", "no_signal"):
        page.write(result(1, status=status))
    assert state(page)["cameras"][0]["silences"] == 2


def test_a_program_that_hangs_is_not_shown_as_live(
    serve: Serve, result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = serve()
    assert state(page)["cameras"][0]["status"] == "starting"
    page.write(result(0))
    monkeypatch.setattr(camera, "STALLED_S", 0.0)
    assert state(page)["cameras"][0]["status"] == "stalled"


def test_a_program_that_rarely_answers_on_purpose_does_not_hang(
    serve: Serve, result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare, usual = serve(quiet_s=60.0, cameras=("a", "b")), serve()
    monkeypatch.setattr(camera, "STALLED_S", 0.0)
    monkeypatch.setattr(routes, "SILENT_S", 0.0)
    for page in (rare, usual):
        page.write(result(0, stream=0))
        page.write(result(0, stream=1))
    assert [c["status"] for page in (rare, usual) for c in state(page)["cameras"]] == [
        "ok",
        "ok",
        "stalled",
        "stalled",
    ]
    assert [ask(page, "/healthz")[0].status for page in (rare, usual)] == [200, 503]


def test_several_cameras_have_a_tile_each_in_the_order_given(serve: Serve, result: Make) -> None:
    page = serve(cameras=("rtsp://a/", "/dev/video0"))
    page.write(result(0, stream=1))
    assert [(c["name"], c["status"]) for c in state(page)["cameras"]] == [
        ("rtsp://a/", "starting"),
        ("/dev/video0", "ok"),
    ]
    assert [ask(page, f"/frame.jpg?camera={i}")[0].status for i in range(3)] == [204, 200, 404]


def test_cameras_that_were_not_announced_get_a_tile_up_to_a_limit(
    serve: Serve, result: Make
) -> None:
    page = serve()
    for index in (0, 2, 50):
        page.write(result(0, source=f"camera {index}", stream=index))
    assert [c["name"] for c in state(page)["cameras"]] == ["camera 0", "", "camera 2"]
    for index in range(50):
        page.write(result(0, stream=index))
    assert len(state(page)["cameras"]) == 16


def test_cameras_past_the_limit_have_no_tile_that_never_starts(
    serve: Serve, result: Make, caplog: pytest.LogCaptureFixture
) -> None:
    page = serve(cameras=[f"camera {i}" for i in range(20)])
    for index in range(20):
        page.write(result(0, stream=index))
    assert [c["status"] for c in state(page)["cameras"]] == ["ok"] * 16
    assert "the first 16 of 20 cameras" in caplog.text


def test_the_photos_of_a_folder_share_one_tile(serve: Serve, result: Make) -> None:
    page = serve()
    for index in range(3):
        page.write(result(index, source=f"photos/{index}.jpg"))
    assert [c["name"] for c in state(page)["cameras"]] == ["photos/2.jpg"]


def test_the_sensors_of_the_board_are_reported(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("gpu-thermal\n")
    (zone / "temp").write_text("51250\n")
    monkeypatch.setattr(live_state, "ROOT", tmp_path)
    assert state(serve())["machine"]["temperatures_c"] == {"gpu-thermal": 51.25}


def test_health_is_that_of_the_pipeline(serve: Serve, result: Make) -> None:
    page = serve()
    assert ask(page, "/healthz")[0].status == 503
    page.write(result(status="no_signal"))
    answer, body = ask(page, "/healthz")
    assert (answer.status, json.loads(body)["ok"]) == (200, True)


@pytest.mark.parametrize("path", ["/", "/state.json", "/frame.jpg", "/healthz", "/none"])
def test_every_answer_has_the_headers_that_keep_other_pages_out(
    serve: Serve, result: Make, path: str
) -> None:
    page = serve()
    page.write(result(0))
    headers = ask(page, path)[0].headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    named = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }
    assert {name: headers[name] for name in named} == named
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert len(headers.get_all("Content-Security-Policy")) == 1
    assert headers["Server"] == "finedge"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_only_get_and_head_are_answered(serve: Serve, method: str) -> None:
    page = serve()
    answer, _ = ask(page, "/", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    head, body = ask(page, "/", method="HEAD")
    assert (head.status, body) == (200, b"")
    assert int(head.headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/page.html",
        "//none",
        "/%2e%2e/",
        "/frame.jpg?camera=-1",
        "/frame.jpg?camera=%C2%B2",
        "/frame.jpg?after=" + "9" * 99,
    ],
)
def test_only_the_four_paths_exist(serve: Serve, path: str) -> None:
    assert ask(serve(), path)[0].status == 404


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:8080", "[::1]:8080", "127.8.9.10"]
)
def test_names_of_this_machine_are_served_on_loopback(serve: Serve, host: str) -> None:
    assert ask(serve(), "/", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5:8080",
        "localhost.evil.example",
        "",
        "[::1",
        "user@localhost",
    ],
)
def test_other_names_are_refused_on_loopback(serve: Serve, host: str) -> None:
    answer, body = ask(serve(), "/state.json", Host=host)
    assert answer.status == 403
    assert b"cameras" not in body


def test_a_request_without_host_is_refused(serve: Serve) -> None:
    with socket.create_connection(("127.0.0.1", port(serve())), timeout=30) as connection:
        connection.sendall(b"GET /state.json HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_is_refused_and_the_next_client_is_served(serve: Serve, line: bytes) -> None:
    page = serve()
    with socket.create_connection(("127.0.0.1", port(page)), timeout=30) as connection:
        connection.sendall(line)
        answer = connection.recv(100)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")) or answer == b""
    assert ask(page, "/")[0].status == 200


def test_a_broken_body_of_head_is_refused_without_a_body(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port(serve())), timeout=30) as connection:
        connection.sendall(
            b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.endswith(b"\r\n\r\n")
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_body_is_not_read_as_the_next_request(serve: Serve) -> None:
    with socket.create_connection(("127.0.0.1", port(serve())), timeout=30) as connection:
        connection.sendall(
            b"GET /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n"
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_any_other_address_makes_a_token_and_logs_it_once(
    serve: Serve, result: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    page = serve("0.0.0.0:0")
    page.write(result(0))
    (token,) = re.findall(r"\?token=([\w-]{40,})", caplog.text)
    for path in (
        "/",
        "/state.json",
        "/frame.jpg",
        "/none",
        "/?token=",
        f"/?token={token}x",
        f"/state.json?token={token}",
    ):
        assert ask(page, path)[0].status == 401, path
    answer, _ = ask(page, f"/?token={token}")
    cookie = answer.headers["Set-Cookie"]
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite" in cookie
    assert token not in cookie
    for path in ("/", "/state.json", "/frame.jpg"):
        assert ask(page, path, Cookie=cookie.split(";")[0])[0].status == 200, path
    assert ask(page, "/", Cookie=cookie.split("=")[0] + "=wrong")[0].status == 401
    assert token not in ask(page, "/", Cookie=cookie.split(";")[0])[1].decode()
    assert caplog.text.count(token) == 1
    assert ask(page, "/healthz")[0].status == 200


def test_a_given_token_is_asked_for_on_loopback_too_and_never_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    page = serve(token=TOKEN)
    assert ask(page, "/")[0].status == 401
    assert ask(page, f"/?token={TOKEN}", Host="any.example")[0].status == 303
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("other", ['x={"a":1}', "a[b]=1", "x=a b", "k=\u00e9", "=", ";;"])
def test_cookies_of_other_programs_do_not_lock_a_reader_out(serve: Serve, other: str) -> None:
    page = serve(token=TOKEN)
    cookie = ask(page, f"/?token={TOKEN}")[0].headers["Set-Cookie"].split(";")[0]
    assert ask(page, "/", Cookie=f"{other}; {cookie}; {other}")[0].status == 200
    assert ask(page, "/", Cookie=f"{other}; {cookie}x; {other}")[0].status == 401


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, long enough", "x" * 15])
@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:0"])
def test_a_token_that_protects_little_is_refused(token: str, address: str) -> None:
    with pytest.raises(UsageError, match="token") as caught:
        LivePage(address, token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "::1:80",
        "http://127.0.0.1:80",
        "no-such-host.invalid:80",
        "",
    ],
)
def test_an_address_of_another_form_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match=re.escape("HOST:PORT, like 127.0.0.1:8080")) as caught:
        LivePage(address)
    assert caught.value.exit_code == 2


def test_a_port_in_use_or_a_foreign_address_is_a_system_problem(serve: Serve) -> None:
    page = serve()
    for address, hint in (
        (f"127.0.0.1:{port(page)}", "another port"),
        ("192.0.2.1:0", "this machine"),
    ):
        with pytest.raises(FinedgeError, match=hint) as caught:
            LivePage(address)
        assert isinstance(caught.value, SystemProblem)
        assert caught.value.exit_code == 3


def test_a_closed_page_frees_its_port_and_may_be_closed_again(serve: Serve) -> None:
    page = serve()
    page.close()
    page.close()
    serve(f"127.0.0.1:{port(page)}")


def test_ipv6_is_served_where_there_is_any(serve: Serve) -> None:
    try:
        page = serve("[::1]:0")
    except SystemProblem as error:
        pytest.skip(str(error))
    with socket.create_connection(("::1", port(page)), timeout=30) as connection:
        connection.sendall(
            f"GET / HTTP/1.1\r\nHost: [::1]:{port(page)}\r\nConnection: close\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
