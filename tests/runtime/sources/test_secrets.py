"""A whole run over a real stream: no secret in its lines, logs, files, file names or pages."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.errors import SystemProblem
from finedge.runtime.sources import open_source

Serve = Callable[..., Any]
FORMS = [
    "http://me@mail.org:S3CRET@127.0.0.1:{}/mjpeg",
    "http://127.0.0.1:{}/mjpeg?u=a&p=S3CRET",
    "http://bob:a%20S3CRET@127.0.0.1:{}/mjpeg?x=1#S3CRET",
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("form", FORMS)
def test_no_secret_leaves_a_run(
    form: str,
    web: Serve,
    tiny_bundle: Bundle,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FINEDGE_LOG", "DEBUG")
    kept, video, port, pages = tmp_path / "kept", tmp_path / "out.avi", free_port(), list[bytes]()

    def look() -> None:
        until = time.monotonic() + 20
        while not pages and time.monotonic() < until:
            with suppress(OSError):
                pages.append(
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/state.json", timeout=5).read()
                )
            time.sleep(0.02)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    options = [
        "--frames",
        30,
        "--serve",
        f"127.0.0.1:{port}",
        "--save",
        video,
        "--collect",
        kept,
        "--collect-below",
        1,
    ]
    code = main(
        ["classify", str(tiny_bundle.path), form.format(web().server_port), *map(str, options)]
    )
    looking.join()
    out, err = capfd.readouterr()
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["source"].startswith("http://")
    assert pages
    files = [p for p in (*kept.rglob("*"), video) if p.is_file()]
    assert any(p.name == "index.jsonl" for p in files)
    names, index = "".join(map(str, files)), (kept / "index.jsonl").read_text()
    assert "S3CRET" not in out + err + names + pages[0].decode() + index
    assert not any(b"S3CRET" in p.read_bytes() for p in files)


def test_benchmark_of_a_camera_shows_no_secret(
    tiny_bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "rtsp://me@mail.org:S3CRET@127.0.0.1:1/x"
    assert main(["benchmark", str(tiny_bundle.path), "--mode", "camera", "--source", source]) != 0
    assert "S3CRET" not in "".join(capfd.readouterr())


def test_ffmpeg_writes_no_address_to_stderr(
    web: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finedge.runtime.sources.ffmpeg.OPEN_TIMEOUT_S", 1.0)
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\ngone.ts?token=S3CRET\n#EXT-X-ENDLIST\n"
    (tmp_path / "l.m3u8").write_text(lines)
    uri = web().uri.replace("//", "//bob:S3CRET@") + "/l.m3u8"
    with pytest.raises(SystemProblem):
        open_source(uri, timeout_s=1)
    assert "S3CRET" not in "".join(capfd.readouterr())
