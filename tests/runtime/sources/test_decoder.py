"""What a container says of its pictures is what a frame shows: time, rotation, damage."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from finedge.errors import DataError
from finedge.runtime.sources import Frame, open_source
from finedge.runtime.stream.stream import seconds_of
from tests.runtime.sources import clips

TICK_S = 0.0011  # Matroska and FLV count in ms
VARIED_S = [*(i / 30 for i in range(12)), 0.9, 1.4, 1.9, 2.0, 2.033, 2.5]
LOSSY = 40  # grey levels of a plain colour after a lossy codec of four colours


def frames_of(path: Path) -> list[Frame]:
    with open_source(str(path)) as source:
        return list(source)


def corners(image: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """The colours of the four quadrants, each channel 0 or 255."""
    h, w = image.shape[:2]
    points = [
        (h // 4, w // 4),
        (h // 4, 3 * w // 4),
        (3 * h // 4, w // 4),
        (3 * h // 4, 3 * w // 4),
    ]
    return [tuple(int(255 * (c > 127)) for c in image[point]) for point in points]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b-frames.mp4", "libx264", {"bf": "2", "g": "6"}),
        ("b-frames.mkv", "libx264", {"bf": "2", "g": "6"}),
        ("clip.mov", "libx264", {"bf": "0"}),
        ("clip.ts", "libx264", {"g": "6"}),
        ("clip.flv", "libx264", {"g": "6"}),
        ("clip.webm", "libvpx-vp9", {"deadline": "realtime"}),
        ("h265.mp4", "libx265", {"x265-params": "log-level=none"}),
        ("photos.mkv", "mjpeg", {"strict": "unofficial"}),
    ],
)
def test_a_frame_has_the_presentation_time_of_its_container(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = clips.write_clip(
        tmp_path / name,
        clips.grey(len(VARIED_S)),
        seconds=VARIED_S,
        codec=codec,
        options=options,
        pixels=pixels,
    )
    with open_source(str(path)) as source:
        frames = list(source)
    assert [frame.seconds for frame in frames] == pytest.approx(VARIED_S, abs=TICK_S)
    assert [seconds_of(source, frame) for frame in frames] == [frame.seconds for frame in frames]
    assert all(a.image.mean() < b.image.mean() for a, b in pairwise(frames))


@pytest.mark.parametrize(("name", "codec"), [("clip.mpg", "mpeg2video"), ("clip.avi", "mpeg4")])
def test_pictures_out_of_order_without_stamps_have_a_time(
    name: str, codec: str, tmp_path: Path
) -> None:
    path = clips.write_clip(tmp_path / name, clips.grey(20), codec=codec, options={"bf": "2"})
    times = [frame.seconds for frame in frames_of(path)]
    first = times[0] or 0.0
    assert [(time or 0.0) - first for time in times] == pytest.approx(
        [i / 25 for i in range(20)], abs=TICK_S
    )


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
@pytest.mark.parametrize(
    ("degrees", "mirrored", "order"),
    [
        (0, False, (0, 1, 2, 3)),
        (90, False, (1, 3, 0, 2)),
        (180, False, (3, 2, 1, 0)),
        (270, False, (2, 0, 3, 1)),
        (0, True, (1, 0, 3, 2)),
        (90, True, (3, 1, 2, 0)),
    ],
)
def test_a_picture_is_upright(
    codec: str, degrees: float, mirrored: bool, order: tuple[int, ...], tmp_path: Path
) -> None:
    path = clips.write_clip(
        tmp_path / "phone.mov",
        [clips.quadrants()] * 3,
        codec=codec,
        pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        display=(degrees, mirrored),
    )
    with open_source(str(path)) as source:
        frames = list(source)
    size = (96, 64) if degrees in (90, 270) else (64, 96)
    assert {frame.image.shape[:2] for frame in frames} == {size}
    assert (source.info.height, source.info.width) == size
    assert corners(frames[-1].image) == [clips.CORNERS[i] for i in order]


def test_interlaced_video_has_its_pictures(tmp_path: Path) -> None:
    path = clips.write_clip(
        tmp_path / "dvr.ts",
        [clips.quadrants()] * 5,
        codec="mpeg2video",
        options={"flags": "+ilme+ildct"},
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert all(corners(frame.image) == list(clips.CORNERS) for frame in frames_of(path))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_colours_survive_every_depth(pixels: str, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mkv", [clips.quadrants()] * 3, pixels=pixels)
    image = frames_of(path)[-1].image[8:24, 8:40]
    assert np.abs(image.reshape(-1, 3).mean(0) - clips.CORNERS[0]).max() < LOSSY


def test_the_pixels_are_those_of_opencv(shared_data: Path) -> None:
    path = shared_data / "video" / "car-detection.mp4"
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    with open_source(str(path)) as source:
        for _, frame in zip(range(30), source, strict=False):
            assert (frame.image == reader.read()[1][..., ::-1]).all()
    reader.release()


def test_a_trimmed_clip_is_complete(tmp_path: Path) -> None:
    whole = clips.write_clip(tmp_path / "whole.mp4", clips.grey(40), options={"g": "40", "bf": "0"})
    trimmed = clips.shift_start(whole, tmp_path / "trimmed.mp4", frames=10)
    frames = frames_of(trimmed)
    assert len(frames) == 30
    assert frames[0].seconds == pytest.approx(0.0, abs=TICK_S)
    assert frames[0].image.mean() == pytest.approx(frames_of(whole)[10].image.mean(), abs=1)


def test_two_recordings_in_one_file_have_one_clock(tmp_path: Path) -> None:
    data = clips.write_clip(tmp_path / "one.ts", clips.grey(10)).read_bytes()
    (tmp_path / "two.ts").write_bytes(data + data)
    times = [frame.seconds or 0.0 for frame in frames_of(tmp_path / "two.ts")]
    assert len(times) == 20
    assert all(0.03 < b - a < 0.05 for a, b in pairwise(times))


def test_a_recording_that_begins_between_key_frames_starts_at_the_next(tmp_path: Path) -> None:
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    path = clips.write_clip(tmp_path / "whole.ts", clips.grey(30), options=options)
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    (tmp_path / "late.ts").write_bytes(path.read_bytes()[starts[3] :])
    assert len(frames_of(tmp_path / "late.ts")) in (20, 21)


def test_a_damaged_picture_ends_the_video(tmp_path: Path) -> None:
    options = {"g": "30", "bf": "0"}
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(20)]
    path = clips.write_clip(tmp_path / "clip.mp4", pictures, options=options)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][10]
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes([255]) * size
    path.write_bytes(data)
    frames: list[Frame] = []
    with (
        pytest.raises(DataError, match=r"ends after 10 of the 20 .*: the next cannot be decoded"),
        open_source(str(path)) as source,
    ):
        frames.extend(source)
    assert len(frames) == 10


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\n{}/a.ts\n", "ffconcat version 1.0\nfile '{}/a.mp4'\n"]
)
def test_a_file_that_names_an_address_opens_none(text: str, web: Any, tmp_path: Path) -> None:
    server = web()
    (tmp_path / "list.mp4").write_text(text.format(server.uri))
    with pytest.raises(DataError, match="cannot be opened as a video"):
        open_source(str(tmp_path / "list.mp4"))
    assert not server.sockets
