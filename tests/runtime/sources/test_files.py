from __future__ import annotations

import logging
import os
import shutil
import struct
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from finedge.errors import DataError, SystemProblem, UsageError
from finedge.runtime.sources import SOURCES, CaptureOptions, Frame, mask, open_source
from finedge.runtime.sources.files import ImageFiles

CONTAINERS = {"avi": "MJPG", "mkv": "mp4v", "webm": "VP80", "mp4": "mp4v"}
FRAMES = 30


def write_video(path: Path, *, frames: int = FRAMES) -> Path:
    """Write noise whose red grows. It compresses badly: half the bytes hold half the frames."""
    writer = cv2.VideoWriter(
        str(path),
        cv2.CAP_FFMPEG,
        cv2.VideoWriter_fourcc(*CONTAINERS[path.suffix[1:]]),
        25.0,
        (96, 64),
    )
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for i in range(frames):
        picture = rng.integers(0, 60, (64, 96, 3), dtype=np.uint8)
        picture[..., 2] = 60 + 180 * i // frames
        writer.write(picture)
    writer.release()
    return path


def write_images(folder: Path, names: str) -> Path:
    for i, name in enumerate(names.split()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 10), (200, 10 * i, 0)).save(folder / name)
    return folder


def example(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Return an address of a kind of source.

    A new kind needs one line in `examples`; one that needs hardware is skipped.
    """
    if kind == "rtsp":
        return str(request.getfixturevalue("serve")().uri)
    if kind == "http":
        return str(request.getfixturevalue("web")().uri) + "/mjpeg"
    if kind == "gstreamer":
        request.getfixturevalue("gi")
    photos = write_images(folder / "photos", "b.png a.jpg deep/c.png")
    examples = {
        "test": "test://",
        "glob": str(photos / "*.png"),
        "folder": str(photos),
        "image": str(photos / "a.jpg"),
        "gstreamer": "videotestsrc is-live=true ! video/x-raw,width=32,height=16 ! appsink",
        "video": str(write_video(folder / "clip.avi")),
    }
    if kind not in examples:
        pytest.skip(f"a source of kind '{kind}' needs hardware")
    return examples[kind]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_yields_rgb_frames_in_order_of_time(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with open_source(example(kind, tmp_path, request)) as source:
        frames = list(islice(source, 5))
    assert source.info.kind == kind
    assert frames
    assert frames[0].index == 0
    assert all(a.index < b.index and a.captured_ns <= b.captured_ns for a, b in pairwise(frames))
    assert all(
        f.image.dtype == np.uint8
        and f.image.ndim == 3
        and f.image.shape[2] == 3
        and f.name
        and f.decode_ms >= 0
        for f in frames
    )


@pytest.mark.parametrize("kind", SOURCES)
def test_an_unknown_form_lists_every_form(kind: str) -> None:
    with pytest.raises(UsageError) as error:
        open_source("gopher://camera")
    assert SOURCES[kind].form in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "rtmp://host/stream",
        "gopher://camera",
        "nvarguscamerasrc ! fakesink",
        "test://x",
        "http://",
        "csi://x",
        "",
    ],
)
def test_an_address_of_no_kind_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)


def test_a_password_never_shows_in_an_error() -> None:
    with pytest.raises(UsageError) as error:
        open_source("rtmp://me:s3cr@t@host:554/stream")
    assert "rtmp://me:***@host:554/stream" in str(error.value)
    assert "s3cr" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://me:a/b@c@host/x", "rtsp://me:***@host/x"),
        ("rtsp://:pw@host", "rtsp://:***@host"),
        ("rtsp://me@host:554/x", "rtsp://me@host:554/x"),
        (
            "rtsp://host:554/user=admin&password=geheim&channel=1",
            "rtsp://host:554/user=admin&password=***&channel=1",
        ),
        ("http://host/v?pwd=geheim", "http://host/v?pwd=***"),
        (
            'rtspsrc location=rtsp://me:geheim@host/ user-pw="ge heim" ! appsink',
            "rtspsrc location=rtsp://me:***@host/ user-pw=*** ! appsink",
        ),
        ("rtsp://me:a'b\"c@host/x", "rtsp://me:***@host/x"),
        ("http://host/v?access_token=geheim&x=1", "http://host/v?access_token=***&x=1"),
        (
            "http://host/v?user=me&apikey=geheim&loginpas=geheim&pw=geheim",
            "http://host/v?user=me&apikey=***&loginpas=***&pw=***",
        ),
        ("rtsp://[::1]:554/x", "rtsp://[::1]:554/x"),
        ("x264enc key-int-max=10 pass=qual", "x264enc key-int-max=10 pass=***"),
        ("/photos/key/a.jpg", "/photos/key/a.jpg"),
    ],
)
def test_mask_hides_secrets_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("uri", "option"),
    [
        ("photos", {"flip": 2}),
        ("clip.avi", {"fps": 5.0}),
        ("csi://0", {"latency_ms": 5}),
        ("test://", {"width": 9, "height": 9}),
    ],
)
def test_an_option_that_a_kind_does_not_take_is_refused(
    uri: str, option: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, "photos/a.png")
    with pytest.raises(UsageError, match=f"'{uri}' takes no {next(iter(option))}"):
        open_source(uri, capture=CaptureOptions(**option))


def test_default_options_are_accepted_by_every_kind(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    with open_source(
        str(tmp_path),
        capture=CaptureOptions(width=None, height=None, fps=None, flip=0, latency_ms=None),
    ) as source:
        assert isinstance(source, ImageFiles)


@pytest.mark.parametrize("name", ["gone.jpg", "gone.mp4", "gone", "gone/*.jpg"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone"):
        list(open_source(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["*" * 300, "videotestsrc " + "x" * 300 + " ! fakesink"])
def test_a_name_that_no_file_can_have_is_a_data_error(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot read .*File name too long"):
        open_source(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", "a.png", "*.png"])
def test_a_folder_that_may_not_be_read_is_a_data_error(name: str, tmp_path: Path) -> None:
    locked = write_images(tmp_path / "locked", "a.png")
    locked.chmod(0)
    with pytest.raises(DataError, match="locked"), open_source(str(locked / name)) as source:
        list(source)
    locked.chmod(0o700)


# --- images ---


def test_a_text_file_named_jpg_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "note.jpg"
    path.write_text("milk, eggs")
    with (
        pytest.raises(DataError, match=r"note\.jpg is not an image"),
        open_source(str(path)) as source,
    ):
        list(source)


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    write_images(tmp_path, "b.png a.jpg deep/c.PNG .hidden.png .git/d.png")
    (tmp_path / "notes.txt").write_text("no image")
    with open_source(str(tmp_path)) as source:
        assert [Path(f.name).relative_to(tmp_path).as_posix() for f in source] == [
            "a.jpg",
            "b.png",
            "deep/c.PNG",
        ]


def test_a_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    folder = write_images(tmp_path / ".cache" / "photos", "a.png")
    assert len(list(open_source(str(folder)))) == 1


def test_unreadable_images_are_skipped_counted_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path, "a.png c.png d.png")
    (tmp_path / "b.png").write_bytes(b"")
    logger = logging.getLogger("finedge.runtime.sources.files")
    logger.addHandler(caplog.handler)
    with open_source(str(tmp_path)) as source:
        assert [f.index for f in source] == [0, 2, 3]
    logger.removeHandler(caplog.handler)
    assert "skipped 1 of 4 images" in caplog.text
    assert str(tmp_path / "b.png") in caplog.text


@pytest.mark.parametrize(
    ("bad", "options", "refused"),
    [
        (1, {}, False),
        (3, {}, True),
        (4, {"max_unreadable": 1.0}, True),
        (3, {"max_unreadable": 0.8}, False),
    ],
)
def test_a_folder_is_refused_when_all_or_too_many_images_fail(
    bad: int, options: dict[str, float], refused: bool, tmp_path: Path
) -> None:
    write_images(tmp_path, "a.png b.png c.png d.png")
    for name in "abcd"[:bad]:
        (tmp_path / f"{name}.png").write_bytes(b"broken")
    with open_source(str(tmp_path), **options) as source:
        if not refused:
            assert len(list(source)) == 4 - bad
            return
        with pytest.raises(DataError, match=f"{bad} of the 4 images"):
            list(source)


def test_a_glob_crosses_folders_with_two_stars(tmp_path: Path) -> None:
    write_images(tmp_path, "b.png a.jpg deep/c.png")
    assert [Path(f.name).name for f in open_source(str(tmp_path / "**" / "*.png"))] == [
        "b.png",
        "c.png",
    ]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    write_images(tmp_path, "bird[1].png bird1.png")
    with open_source(str(tmp_path / "bird[1].png")) as source:
        assert [Path(f.name).name for f in source] == ["bird[1].png"]


def test_a_folder_or_glob_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for uri in (tmp_path, tmp_path / "*.txt"):
        with pytest.raises(DataError, match="has no images"):
            open_source(str(uri))


# --- video ---


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_frame_of_a_video_comes_in_order_and_in_rgb(container: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"clip.{container}")
    with open_source(str(path)) as source:
        frames = list(source)
    info = source.info
    assert (info.frames, info.width, info.height, info.fps) == (FRAMES, 96, 64, 25.0)
    assert [f.index for f in frames] == list(range(FRAMES))
    reds = [f.image[..., 0].mean() for f in frames]
    assert reds[-1] - reds[0] > 100
    assert frames[-1].image[..., 2].mean() < 60


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c != "mp4"])
def test_a_truncated_video_gives_its_frames_and_then_an_error(
    container: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / f"clip.{container}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list[Frame]()
    with (
        pytest.raises(DataError, match=rf"ends after \d+ of the {FRAMES} frames"),
        open_source(str(path)) as source,
    ):
        frames.extend(source)
    assert 0 < len(frames) < FRAMES


def test_an_mp4_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(DataError, match="cannot be opened as a video"):
        open_source(str(path))


@pytest.mark.parametrize("content", [b"", b"milk, eggs"])
def test_a_file_that_is_no_video_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"clip\.mp4 \(\d+ bytes\) cannot be opened"):
        open_source(str(path))


@pytest.mark.parametrize("name", ["notes.txt", "song.mp3", "list.m3u8", "noname"])
def test_a_file_of_another_kind_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("no picture")
    with pytest.raises(DataError, match="neither an image nor a video"):
        open_source(str(tmp_path / name))


def test_a_name_that_is_not_utf8_is_refused_and_crashes_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4").rename(tmp_path / os.fsdecode(b"clip-\xff.mp4"))
    with pytest.raises(DataError, match="a name of other bytes"), open_source(str(path)):
        pass


def test_a_phone_video_comes_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=3)
    data = bytearray(path.read_bytes())
    # The matrix comes after version, times and volume of a version 0 track header.
    position = data.find(b"tkhd") + 4 + 4 + 20 + 16
    one, unit = 0x10000, 0x40000000
    upright = (one, 0, 0, 0, one, 0, 0, 0, unit)
    assert struct.unpack_from(">9i", data, position) == upright
    struct.pack_into(">9i", data, position, 0, one, 0, -one, 0, 0, 0, 0, unit)  # a quarter turn
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert {f.image.shape for f in source} == {(96, 64, 3)}


def test_a_colon_in_a_file_name_does_not_mean_a_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "clip.avi").rename(tmp_path / "http:clip.avi")
    monkeypatch.chdir(tmp_path)
    with open_source("http:clip.avi") as source:
        assert len(list(source)) == FRAMES


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (35, 17)])
def test_odd_sizes_keep_every_column_and_row(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, size)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[:, -8:, 2] = 255  # a red right edge
    for _ in range(3):
        writer.write(picture)
    writer.release()
    with open_source(str(path)) as source:
        frames = list(source)
    width, height = size[0] // 2 * 2, size[1] // 2 * 2  # OpenCV's writer rounds down to even sizes
    assert {f.image.shape for f in frames} in ({(size[1], size[0], 3)}, {(height, width, 3)})
    assert all(f.image[:, -2:, 0].mean() > 200 for f in frames)


def test_a_rate_that_varies_loses_and_doubles_no_frame(tmp_path: Path) -> None:
    tool = shutil.which("gst-launch-1.0")
    if tool is None:
        pytest.skip("gst-launch-1.0 is missing: the packages of tests/apt.txt")
    path = tmp_path / "phone.mkv"
    caps = "video/x-raw,format=I420,width=64,height=48"
    no_rate = "capssetter caps=video/x-raw,framerate=0/1"
    scenes = [
        f"videotestsrc num-buffers=10 pattern={colour} ! {caps},framerate={fps}/1 ! {no_rate} ! c."
        for colour, fps in (("red", 50), ("blue", 5))
    ]
    text = f"concat name=c ! jpegenc ! matroskamux ! filesink location={path} {' '.join(scenes)}"
    subprocess.run([tool, "--quiet", *text.split()], check=True, capture_output=True)
    with open_source(str(path)) as source:
        frames = list(source)
    assert [int(f.image.reshape(-1, 3).mean(0).argmax()) for f in frames] == [0] * 10 + [2] * 10


@pytest.mark.parametrize(
    ("name", "count"), [("car-detection.mp4", 377), ("bottle-detection.mp4", 1189)]
)
def test_a_real_video_gives_every_frame(name: str, count: int, shared_data: Path) -> None:
    with open_source(str(shared_data / "video" / name)) as source:
        assert sum(1 for _ in source) == count == source.info.frames


def test_a_real_video_cut_in_half_says_how_many_frames_were_read(
    shared_data: Path, tmp_path: Path
) -> None:
    whole = (shared_data / "video" / "car-detection.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(DataError, match=r"ends after \d+ of the 377 frames"),
        open_source(str(tmp_path / "cut.mp4")) as source,
    ):
        list(source)


def test_without_pyav_a_video_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SystemProblem, match=r"need PyAV[\s\S]*pip install av"):
        open_source(str(path))


# --- scene ---


def test_the_scene_moves_is_live_and_repeats_by_seed() -> None:
    first, second, other = (
        list(islice(open_source("test://", fps=1000, seed=seed), 2)) for seed in (1, 1, 2)
    )
    assert open_source("test://").live
    assert first[0].image.shape == (480, 640, 3)
    assert (first[0].image != first[1].image).any()
    assert (first[1].image == second[1].image).all()
    assert (first[0].image != other[0].image).any()


def test_a_scene_without_a_rate_is_refused() -> None:
    with pytest.raises(UsageError):
        open_source("test://", fps=0)
