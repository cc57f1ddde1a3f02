from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest

from finedge.errors import SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import CaptureOptions, Frame, Source, ffmpeg, open_source
from finedge.runtime.sources.capture_time import RtpClock
from finedge.runtime.stream.stream import Stream

GREEN = (0, 160, 0)  # what the server shows
COLOUR_TOLERANCE = 20  # JPEG and H.264 of a plain colour, and two matrices for it
VIAS = ["ffmpeg", "gstreamer"]
Serve = Callable[..., Any]


@pytest.fixture(params=VIAS)
def via(request: pytest.FixtureRequest) -> str:
    if request.param == "gstreamer":
        request.getfixturevalue("gi")
    return str(request.param)


def is_real(frame: Frame) -> bool:
    return bool(np.abs(frame.image.reshape(-1, 3).mean(0) - GREEN).max() < COLOUR_TOLERANCE)


def killed_and_back(frames: Iterator[Frame], server: Any, source: Source) -> list[Frame]:
    """Five frames, the server killed until the loss is known, five more."""
    first = list(islice(frames, 5))
    server.kill()

    def come_back() -> None:
        while not source.losses:  # type: ignore[attr-defined]
            time.sleep(0.005)
        server.start()

    thread = threading.Thread(target=come_back)
    thread.start()
    rest = []
    for frame in frames:
        rest.append(frame)
        if source.losses and len(rest) >= 5 and not thread.is_alive():  # type: ignore[attr-defined]
            break
    thread.join()
    return [*first, *rest]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--codec", "h265"),
        ("--codec", "mjpeg"),
        ("--audio",),
        ("--size", "98x50", "--fps", "10"),
        ("--interlaced",),
    ],
)
def test_a_stream_gives_real_frames_in_order(
    options: tuple[str, ...], via: str, cam: Serve
) -> None:
    with open_source(cam(*options).uri, via=via) as source:
        frames = list(islice(source, 8))
    assert source.live
    assert source.info.kind == "rtsp"
    assert (source.info.width, source.info.height) == ((98, 50) if "98x50" in options else (96, 64))
    assert all(is_real(f) for f in frames)
    assert [f.index for f in frames] == list(range(8))
    assert all(a.captured_ns < b.captured_ns <= time.monotonic_ns() for a, b in pairwise(frames))


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_stream_joined_between_two_key_frames_shows_no_grey(
    codec: str, via: str, cam: Serve
) -> None:
    server, frames = cam("--codec", codec), list[Frame]()
    with open_source(server.uri) as other:  # keeps the encoder running
        next(iter(other))
        for _ in range(4):
            with open_source(server.uri, via=via) as source:
                frames += list(islice(source, 3))
    assert all(is_real(f) for f in frames)


def test_a_killed_server_comes_back_and_the_sequence_goes_on(
    via: str, serve: Serve, log: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with open_source(server.uri.replace("//", "//me:s3cr@t@"), via=via) as source:
        frames = killed_and_back(iter(source), server, source)
    assert source.losses == 1
    assert [f.index for f in frames] == list(range(len(frames)))
    assert all(is_real(f) for f in frames)
    warnings = [r.getMessage() for r in log.records if r.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "trying again" in warnings[0]
    assert "is back after" in warnings[1]
    assert "me:***@127" in warnings[0]
    assert "s3cr" not in log.text


def test_a_camera_that_is_back_with_another_password_is_logged(
    via: str, serve: Serve, log: pytest.LogCaptureFixture
) -> None:
    server, reason = serve(), "wants a user and a password (401)"
    with open_source(server.uri, via=via) as source:
        frames = iter(source)
        next(frames)
        server.kill()
        server.start("--user", "me", "--password", "new")

        def close_when_logged() -> None:
            deadline = time.monotonic() + 20
            while reason not in log.text and time.monotonic() < deadline:
                time.sleep(0.005)
            source.close()  # type: ignore[attr-defined]

        threading.Thread(target=close_when_logged).start()
        list(frames)
    assert [r.levelname for r in log.records if reason in r.getMessage()].count("INFO") == 1


def test_a_server_that_ends_the_stream_in_order_is_a_loss_too(via: str, serve: Serve) -> None:
    with (
        open_source(serve("--frames", "30").uri, via=via, reconnect=False) as source,
        pytest.raises(SourceLost),
    ):
        list(source)


def test_without_reconnecting_a_loss_is_an_error_after_the_last_frame(
    via: str, serve: Serve
) -> None:
    server, frames = serve(), list[Frame]()

    def watch(source: Source) -> None:
        for frame in source:
            frames.append(frame)
            if len(frames) == 5:
                server.kill()

    with (
        open_source(server.uri, via=via, reconnect=False) as source,
        pytest.raises(SourceLost, match=r"rtsp://127[\s\S]*to do") as error,
    ):
        watch(source)
    assert error.value.exit_code == 7
    assert len(frames) >= 5


def test_the_stream_says_no_signal_while_the_server_is_away(serve: Serve) -> None:
    server, events = serve(), list[Frame | None]()
    with open_source(server.uri) as source, Stream(source, no_signal_ms=200) as stream:
        for frame in stream:
            events.append(frame)
            if len(events) == 5:
                server.kill()
            if frame is None and source.losses and events.count(None) == 1:  # type: ignore[attr-defined]
                server.start()
            if None in events and frame is not None:
                break
        source.close()  # type: ignore[attr-defined]
    real = [f for f in events if f is not None]
    assert None in events
    assert all(is_real(f) for f in real)
    assert all(a.index < b.index for a, b in pairwise(real))
    assert stream.counts.captured == stream.counts.used + stream.counts.dropped


def test_a_slow_consumer_gets_the_newest_frame_and_counts_add_up(via: str, cam: Serve) -> None:
    frames: list[Frame] = []
    with open_source(cam("--fps", "50").uri, via=via) as source, Stream(source) as stream:
        for frame in stream:
            if frame is not None:
                frames.append(frame)
                time.sleep(0.1)
            if len(frames) == 10:
                break
        source.close()  # type: ignore[attr-defined]
    assert all(a.index < b.index for a, b in pairwise(frames))
    counts = stream.counts
    assert counts.captured == counts.used + counts.dropped
    assert counts.used == 10
    assert counts.dropped > 0


@pytest.mark.parametrize("when", ["reading", "away"])
def test_close_ends_a_reader_that_waits(when: str, via: str, serve: Serve) -> None:
    server = serve()
    source = open_source(server.uri, via=via)
    frames: list[Frame] = []
    reader = threading.Thread(target=lambda: frames.extend(source), daemon=True)
    reader.start()
    while len(frames) < 3:
        time.sleep(0.005)
    if when == "away":
        server.kill()
        while not source.losses:  # type: ignore[attr-defined]
            time.sleep(0.005)
    source.close()  # type: ignore[attr-defined]
    source.close()  # type: ignore[attr-defined]
    reader.join(10)
    assert not reader.is_alive()


@pytest.mark.parametrize("flip", [0, 3])  # every flip is tested without a server
def test_flip_and_size_change_the_frames(flip: int, via: str, cam: Serve) -> None:
    with open_source(
        cam().uri, via=via, capture=CaptureOptions(flip=flip, width=48, height=32)
    ) as source:
        frame = next(iter(source))
    assert frame.image.shape == ((48, 32, 3) if flip == 3 else (32, 48, 3))


def test_a_rate_thins_the_stream(cam: Serve) -> None:
    with open_source(cam("--fps", "50").uri, capture=CaptureOptions(fps=5)) as source:
        frames = list(islice(source, 4))
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert all(b.captured_ns - a.captured_ns > 100_000_000 for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("rtsp://127.0.0.1:{}/gone", (), r"does not exist on this server \(404\)[\s\S]*path"),
        (
            "rtsp://127.0.0.1:{}/cam",
            ("--user", "me", "--password", "s3cret"),
            r"wants a user and a password \(401\)",
        ),
        (
            "rtsp://me:wrongpw@127.0.0.1:{}/cam",
            ("--user", "me", "--password", "s3cret"),
            r"me:\*\*\*@\S* does not accept this user and password",
        ),
        (
            "rtsp://me:s3cret@127.0.0.1:{}/gone",
            ("--user", "me", "--password", "s3cret"),
            r"does not exist on this server \(404\)",
        ),
        ("rtsp://127.0.0.1:{}/cam", ("--codec", "none"), "has no video"),
    ],
)
def test_a_refusal_of_the_server_is_reported_without_a_password(
    form: str, options: tuple[str, ...], message: str, cam: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemProblem, match=message) as error:
        open_source(form.format(cam(*options).port))
    output = str(error.value) + "".join(capfd.readouterr())
    assert not re.search("wrongpw|s3cret", output)


@pytest.mark.parametrize("written", ["s3cr@t", "s3cr%40t"])
def test_a_password_opens_what_is_protected(written: str, via: str, cam: Serve) -> None:
    uri = cam("--user", "me", "--password", "s3cr@t").uri
    with open_source(uri.replace("//", f"//me:{written}@"), via=via) as source:
        frame = next(iter(source))
    assert is_real(frame)
    assert "s3cr" not in f"{source.info}{frame.name}"


def test_a_port_where_nothing_listens_is_reported(serve: Serve) -> None:
    server = serve()
    server.kill()
    with pytest.raises(
        SystemProblem, match=r"nothing listens at 127\.0\.0\.1 port \d+[\s\S]*to do"
    ):
        open_source(server.uri)


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(SystemProblem, match=r"the name no-such-camera\.invalid is unknown"):
        open_source("rtsp://no-such-camera.invalid/cam")


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://",
        "rtsp:///cam",
        "rtsp://host:port/cam",
        "rtsp://host:70000/cam",
        "rtsp://[::1/cam",
        "rtsp://me:s3c[ret@host/cam",
        "rtsp://a..b/cam",
    ],
)
def test_an_address_without_a_host_or_port_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="names no host and port") as error:
        open_source(uri)
    assert "s3c" not in str(error.value)


def test_a_web_server_is_no_rtsp_server(web: Callable[..., Any]) -> None:
    with pytest.raises(SystemProblem, match=r"does not speak RTSP|was refused"):
        open_source(f"rtsp://127.0.0.1:{web().server_port}/cam", timeout_s=1)


def test_a_silent_server_is_an_error_after_its_time_out(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "OPEN_TIMEOUT_S", 0.5)
    with pytest.raises(SystemProblem, match="does not speak RTSP"):
        open_source(f"rtsp://127.0.0.1:{silent_port}/cam", timeout_s=0.5)


MS = 1_000_000


@pytest.mark.parametrize(
    ("arrivals_ms", "ages_ms"),
    [
        ([0, 40, 80], [0, 0, 0]),
        ([0, 90, 100, 120], [0, 50, 20, 0]),  # held up, then caught up
        ([500, 510, 520, 521], [0, 0, 0, 0]),  # old at first: no frame before it shows that
    ],
)
def test_a_frame_that_waited_is_as_old_as_the_senders_clock_says(
    arrivals_ms: list[int], ages_ms: list[int]
) -> None:
    clock = RtpClock()
    now = [10**6 + a for a in arrivals_ms]
    ages = [(t * MS - clock(40.0 * i, t * MS)) / MS for i, t in enumerate(now)]
    assert ages == pytest.approx(ages_ms, abs=0.05 * 120)  # CLOCK_ERROR of the time that passed


def test_a_slow_senders_clock_does_not_age_pictures_for_ever() -> None:
    clock, now = RtpClock(), 0.0
    for i in range(50_000):  # 33 minutes at 25 frames/s, 3 % off
        now = 1e6 + i * 41.2
        age = now - clock(40.0 * i, round(now * MS)) / MS
        assert age < 1


def test_a_senders_clock_that_jumps_back_starts_again() -> None:
    clock = RtpClock()
    assert clock(3_600_000.0, 5_000_000 * MS) == 5_000_000 * MS
    assert clock(0.0, 5_000_040 * MS) == 5_000_040 * MS


@pytest.mark.slow
def test_ten_kills_in_a_row_lose_no_sequence_number(serve: Serve) -> None:
    server = serve()
    with open_source(server.uri) as source:
        frames, index = iter(source), 0
        for cycle in range(10):
            for frame in islice(frames, 10):
                assert frame.index == index
                assert is_real(frame)
                index += 1
            server.kill()
            threading.Timer(0.3, server.start).start()
            while source.losses == cycle:  # type: ignore[attr-defined]
                assert next(frames).index == index
                index += 1
    assert source.losses == 10
