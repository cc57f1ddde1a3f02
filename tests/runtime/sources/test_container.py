"""Complete videos end well and truncated ones do not, whatever their container estimates."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finedge.errors import DataError, UsageError
from finedge.runtime.sources import open_source
from finedge.runtime.sources.container import is_truncated
from finedge.runtime.sources.worker import run_in_worker

FRAMES = 40
SOON_S = 30.0
CAPS = "video/x-raw,format=I420,width=96,height=64,framerate=30/1"
PATTERN = f"videotestsrc num-buffers={FRAMES} pattern=ball ! {CAPS}"
SOUND = "audiotestsrc num-buffers=120"
LATER = "identity ts-offset=5000000000"
H264 = "x264enc tune=zerolatency key-int-max=15 ! h264parse"
MUXED = {
    "clip.flv": f"{PATTERN} ! {H264} ! flvmux",
    "clip.mkv": f"{PATTERN} ! {H264} ! matroskamux",
    "live.mkv": f"{PATTERN} ! {H264} ! matroskamux streamable=true",
    "later.mkv": f"{PATTERN} ! {LATER} ! {H264} ! matroskamux offset-to-zero=false",
    "clip.webm": f"{PATTERN} ! vp8enc deadline=1 ! webmmux",
    "sound.webm": f"{PATTERN} ! vp8enc deadline=1 ! webmmux name=m {SOUND} ! vorbisenc ! m.",
    "clip.ts": f"{PATTERN} ! {H264} ! mpegtsmux",
    "sound.ts": f"{PATTERN} ! {H264} ! mpegtsmux name=m {SOUND} ! lamemp3enc ! m.",
    "clip.mp4": f"{PATTERN} ! {H264} ! mp4mux faststart=true",
    "pieces.mp4": f"{PATTERN} ! {H264} ! mp4mux fragment-duration=300",
    "clip.mov": f"{PATTERN} ! {H264} ! qtmux",
    "clip.avi": f"{PATTERN} ! jpegenc ! avimux",
    "clip.ogv": f"{PATTERN} ! theoraenc ! oggmux",
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the videos of `MUXED`, without those that this GStreamer cannot make."""
    tool, folder = shutil.which("gst-launch-1.0"), tmp_path_factory.mktemp("videos")
    if tool is None:
        pytest.skip("gst-launch-1.0 is missing: the packages of tests/apt.txt")
    for name, pipeline in MUXED.items():
        head, _, rest = pipeline.partition(" name=m ")
        label = "name=m " if rest else ""
        text = f"{head} {label}! filesink location={folder / name} {rest}"
        command = [tool, "-q", *text.split()]
        run = subprocess.run(command, check=False, capture_output=True, timeout=SOON_S)
        if run.returncode:
            (folder / name).unlink(missing_ok=True)
    return folder


def video(videos: Path, name: str) -> Path:
    if not (videos / name).exists():
        pytest.skip(f"this GStreamer does not make {name}")
    return videos / name


@pytest.mark.parametrize("name", MUXED)
def test_a_complete_video_gives_every_frame_and_ends_well(name: str, videos: Path) -> None:
    path = video(videos, name)
    assert not is_truncated(path)
    with open_source(str(path)) as source:
        assert sum(1 for _ in source) == FRAMES


@pytest.mark.parametrize("name", MUXED)
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_truncated_video_is_refused(
    name: str, fraction: float, videos: Path, tmp_path: Path
) -> None:
    data = video(videos, name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: int(fraction * len(data)) // 2 * 2 + 1])
    assert is_truncated(cut)
    with (
        pytest.raises(DataError, match=r"ends after|cannot be (opened|decoded)"),
        open_source(str(cut)) as source,
    ):
        list(source)


def test_a_picture_of_motion_jpeg_that_is_cut_short_ends_the_video(
    videos: Path, tmp_path: Path
) -> None:
    data = video(videos, "clip.avi").read_bytes()
    at = [i for i in range(len(data) - 2) if data[i : i + 3] == b"\xff\xd8\xff"][10]
    end = data.find(b"\xff\xd9", at)
    middle = at + (end - at) * 3 // 4
    damaged = data[:middle] + b"\xff\xd9" + bytes(end - middle) + data[end + 2 :]
    (tmp_path / "damaged.avi").write_bytes(damaged)
    frames: list[Any] = []
    with (
        pytest.raises(DataError, match=r"ends after 10 of the 40 .*: the next is cut short"),
        open_source(str(tmp_path / "damaged.avi")) as source,
    ):
        frames.extend(source)
    assert len(frames) == 10


@pytest.mark.parametrize(
    ("codec", "reason"),
    [(b"av01", r"none of its frames can be decoded \(av01\)"), (b"xxxx", "has no decoder")],
)
def test_a_video_that_no_decoder_reads_is_refused(
    codec: bytes, reason: str, videos: Path, tmp_path: Path
) -> None:
    data = video(videos, "clip.mp4").read_bytes()
    path = tmp_path / "clip.mp4"
    path.write_bytes(data.replace(b"avc1", codec).replace(b"avcC", b"free"))
    with (
        pytest.raises(DataError, match=rf"{reason}[\s\S]*convert it"),
        open_source(str(path)) as source,
    ):
        list(source)


# --- names and addresses ---


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://localhost{}"])
@pytest.mark.parametrize("name", ["CLIP.AVI", "100%25 %03d.avi"])
def test_a_video_of_any_name_is_opened(form: str, name: str, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48)
    )
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "clip.avi").rename(tmp_path / name)
    path = str(tmp_path / name)
    uri = form.format(path.replace("%", "%25") if "file" in form.lower() else path)
    with open_source(uri) as source:
        assert sum(1 for _ in source) == 3


def test_a_file_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="names no file of this machine"):
        open_source("file://host/clip.mp4")


@pytest.mark.parametrize("uri", ["TEST://", "Test://"])
def test_a_scheme_may_be_in_capitals(uri: str) -> None:
    with open_source(uri) as source:
        assert source.info.kind == "test"


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.jpg"])
def test_a_named_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with (
        pytest.raises(DataError, match="it is a named pipe"),
        open_source(str(tmp_path / name)) as source,
    ):
        list(source)


# --- Ctrl-C ---

WATCH = """
import sys
from finedge.runtime.sources import open_source
print("opening", flush=True)
with open_source(sys.argv[1], timeout_s=60) as source:
    list(source)
"""


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_ctrl_c_ends_the_opening_of_a_silent_source(scheme: str, silent_port: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH, f"{scheme}://127.0.0.1:{silent_port}/cam"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "opening\n"
    time.sleep(0.5)  # into the opening
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=SOON_S) != 0


def test_a_late_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Any] = []

    def slow() -> str:
        time.sleep(0.3)
        return "connection"

    monkeypatch.setattr(
        "threading.Thread.join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        run_in_worker(slow, close=closed.append)
    deadline = time.monotonic() + SOON_S
    while not closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed == ["connection"]


@pytest.mark.parametrize("length", [2**64 - 1, 2**63 - 1, 2**62, 16, 8, 0])
def test_a_box_that_goes_past_every_file_is_no_video(length: int, tmp_path: Path) -> None:
    kind = (16).to_bytes(4, "big") + b"ftypisom" + bytes(4)
    box = (1).to_bytes(4, "big") + b"free" + length.to_bytes(8, "big")
    (tmp_path / "wild.mp4").write_bytes(kind + box + bytes(100))
    with pytest.raises(DataError, match="cannot be opened as a video"):
        open_source(str(tmp_path / "wild.mp4"))
