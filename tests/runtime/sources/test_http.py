from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finedge.errors import SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import CaptureOptions, open_source
from finedge.runtime.stream.stream import Stream

Serve = Callable[..., Any]
FRAMES = 30


def write_video(path: Path, *, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25.0, (96, 64)
    )
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for _ in range(FRAMES):
        writer.write(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return path


def grey(frame: Any) -> int:
    return round(float(frame.image.mean()))


def test_a_web_camera_gives_its_pictures_in_order(web: Serve) -> None:
    with open_source(web().uri + "/mjpeg?user=me&pwd=s3cret") as source:
        frames = list(islice(source, 6))
    assert source.live
    assert source.info.kind == "http"
    assert "s3cret" not in f"{source.info} {frames[0].name}"
    assert [f.index for f in frames] == list(range(6))
    assert all(0 < grey(b) - grey(a) <= 3 for a, b in pairwise(frames))  # JPEG may be one off


def test_an_unplugged_web_camera_comes_back_with_real_frames(
    web: Serve, log: pytest.LogCaptureFixture
) -> None:
    server = web()
    greys = list[int]()
    with open_source(f"http://me:s3cr@127.0.0.1:{server.server_port}/mjpeg") as source:
        for frame in source:
            assert frame.index == len(greys)
            greys.append(grey(frame))
            if len(greys) == 5:
                server.unplug()
                threading.Timer(0.3, web, kwargs={"port": server.server_port}).start()
            if source.losses and len(greys) > 8:  # type: ignore[attr-defined]
                break
    assert source.losses == 1  # type: ignore[attr-defined]
    assert all(50 <= value < 250 for value in greys)
    assert sum(r.levelname == "WARNING" for r in log.records) == 2
    assert "s3cr" not in log.text


def test_without_reconnecting_an_unplugged_web_camera_is_lost(web: Serve) -> None:
    server = web()
    with open_source(server.uri + "/mjpeg", reconnect=False) as source:
        frames = iter(source)
        next(frames)
        server.unplug()
        with pytest.raises(SourceLost, match=r"delivers no frames any more[\s\S]*to do"):
            list(frames)


def test_a_web_camera_that_falls_silent_is_lost(web: Serve) -> None:
    server = web()
    with open_source(server.uri + "/mjpeg", reconnect=False, timeout_s=0.5) as source:
        frames = iter(source)
        next(frames)
        server.pause_s = 60.0
        with pytest.raises(SourceLost):
            list(frames)


def test_a_slow_consumer_gets_the_newest_picture(web: Serve) -> None:
    indices = list[int]()
    with open_source(web().uri + "/mjpeg") as source, Stream(source) as stream:
        for frame in stream:
            if frame is not None:
                indices.append(frame.index)
                threading.Event().wait(0.1)
            if len(indices) == 8:
                break
        source.close()  # type: ignore[attr-defined]
    assert all(a < b for a, b in pairwise(indices))
    assert stream.counts.dropped > 0
    assert stream.counts.captured == stream.counts.used + stream.counts.dropped


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone", r"does not exist on this server \(404\)"),
        ("/private", r"wants a user and a password \(401\)[\s\S]*http://user:password@"),
        ("/page.html", "answers with text/html, in which FFmpeg finds no video"),
        ("/garbage.mjpg", "in which FFmpeg finds no video"),
    ],
)
def test_an_address_without_video_says_so(
    path: str, message: str, web: Serve, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text("<html><body>camera</body></html>")
    (tmp_path / "garbage.mjpg").write_bytes(np.random.default_rng(0).bytes(50_000))
    with pytest.raises(SystemProblem, match=message):
        open_source(web().uri + path, timeout_s=1)


def test_a_server_that_is_no_web_server_is_reported() -> None:
    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(SystemProblem, match=r"gives no HTTP answer: SSH-2\.0"):
            open_source(f"http://127.0.0.1:{server.getsockname()[1]}/cam", timeout_s=1)
        server.shutdown(socket.SHUT_RDWR)


def test_a_wrong_password_is_reported_and_not_shown(
    web: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        SystemProblem, match=r"me:\*\*\*@\S* does not accept this user and password"
    ) as error:
        open_source(web().uri.replace("//", "//me:wr0ng@") + "/private")
    assert "wr0ng" not in str(error.value) + "".join(capfd.readouterr())


def test_a_password_opens_what_is_protected(web: Serve) -> None:
    with open_source(web().uri.replace("//", "//me:s3cr%40t@") + "/private") as source:
        assert next(iter(source)).index == 0


def test_a_silent_web_server_is_an_error_after_its_time_out(
    web: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finedge.runtime.sources.ffmpeg.OPEN_TIMEOUT_S", 0.5)
    with pytest.raises(SystemProblem, match="no answer from"):
        open_source(web().uri + "/silent", timeout_s=0.5)


def test_a_port_where_nothing_listens_is_reported(web: Serve) -> None:
    server = web()
    server.unplug()
    with pytest.raises(SystemProblem, match="nothing listens at"):
        open_source(server.uri + "/mjpeg")


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "list.m3u8"])
def test_a_finished_video_gives_every_frame_and_ends(name: str, web: Serve, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.ts", codec="mp4v")
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nclip.ts\n#EXT-X-ENDLIST\n"
    )
    if name.startswith("clip"):
        write_video(tmp_path / name)
    with open_source(f"{web().uri}/{name}") as source:
        frames = list(source)
    assert not source.live
    assert source.info.kind == "http"
    assert [f.index for f in frames] == list(range(FRAMES))


def test_a_finished_video_that_is_cut_off_is_lost(web: Serve, tmp_path: Path) -> None:
    server = web()
    server.cut_at = write_video(tmp_path / "clip.avi").stat().st_size // 2
    frames = list[Any]()
    with (
        open_source(server.uri + "/clip.avi") as source,
        pytest.raises(SourceLost, match=rf"ends after \d+ of the {FRAMES} frames"),
    ):
        frames.extend(source)
    assert 0 < len(frames) < FRAMES


def test_a_finished_video_takes_no_flip(web: Serve, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    with pytest.raises(UsageError, match="is a finished video"):
        open_source(web().uri + "/clip.avi", capture=CaptureOptions(flip=2))
