from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finedge.errors import SourceLost, SystemProblem
from finedge.runtime.sources import CaptureOptions, open_source
from finedge.runtime.sources.base import FLIPS, TRANSPOSING_FLIPS
from finedge.runtime.sources.camera import open_camera
from finedge.runtime.sources.capture_time import MAX_DELAY_NS, driver_time
from finedge.runtime.sources.geometry import flip_image

FRAMES = 12


def write_video(path: Path) -> Path:
    """Write a video that stands in for a camera.

    OpenCV reads it through the same interface, and its end is the pulled plug.
    """
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (96, 64)
    )
    for i in range(FRAMES):
        writer.write(np.full((64, 96, 3), (0, 0, 100 + 10 * i), np.uint8))
    writer.release()
    return path


def open_stand_in(path: Path, **options: Any) -> Any:
    return open_camera(f"v4l2://{path}", api=cv2.CAP_FFMPEG, **options)


@pytest.mark.parametrize(
    "uri", ["/dev/video99", "v4l2:///dev/video99", "99", "/dev/video99?codec=mjpeg"]
)
def test_a_missing_camera_is_named_with_what_to_do(uri: str) -> None:
    with pytest.raises(SystemProblem, match=r"there is no camera /dev/video99[\s\S]*to do"):
        open_source(uri)


def test_a_bare_digit_is_a_v4l2_index_and_the_log_says_so(log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemProblem):
        open_source("99")
    assert "V4L2 index 99: /dev/video99" in log.text


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(SystemProblem, match="cannot be opened as a camera"):
        open_source("v4l2:///dev/null")


def test_a_device_that_is_no_camera_is_refused_by_gstreamer_too(gi: None) -> None:
    with pytest.raises(SystemProblem, match="failed in GStreamer's v4l2src"):
        open_source("v4l2:///dev/null", via="gstreamer")


def test_a_camera_that_goes_away_is_lost_after_its_last_frame(tmp_path: Path) -> None:
    frames: list[Any] = []
    with (
        open_stand_in(write_video(tmp_path / "cam.avi"), reconnect=False) as camera,
        pytest.raises(SourceLost, match=f"delivers no frames any more \\({FRAMES} were read\\)"),
    ):
        frames.extend(camera)
    assert camera.live
    assert [f.index for f in frames] == list(range(FRAMES))
    assert frames[-1].image[..., 0].mean() > 200


def test_a_camera_that_was_pulled_is_tried_until_it_is_back(
    tmp_path: Path, log: pytest.LogCaptureFixture, until: Callable[[Callable[[], object]], None]
) -> None:
    device = write_video(tmp_path / "cam.avi")
    with open_stand_in(device) as camera:
        frames = iter(camera)
        first = list(islice(frames, FRAMES))
        device.rename(tmp_path / "pulled.avi")
        rest: list[Any] = []
        reader = threading.Thread(target=lambda: rest.extend(islice(frames, 5)))
        reader.start()
        until(lambda: log.text.count("there is no camera") >= 2)
        (tmp_path / "pulled.avi").rename(device)
        reader.join(10)
    assert [f.index for f in first + rest] == list(range(FRAMES + 5))
    assert camera.losses == 1
    lost, back = [r.getMessage() for r in log.records if r.levelname == "WARNING"]
    assert "delivers no frames any more" in lost
    assert "is back after" in back


def test_a_closed_camera_ends_its_iteration(tmp_path: Path) -> None:
    with open_stand_in(write_video(tmp_path / "cam.avi")) as camera:
        frames = iter(camera)
        next(frames)
    assert list(frames) == []


def test_a_format_that_the_camera_does_not_take_is_logged(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    with open_stand_in(
        write_video(tmp_path / "cam.avi"), capture=CaptureOptions(width=1920, height=1080)
    ) as camera:
        next(iter(camera))
    assert "delivers 96x64 at 25 frames/s, which is not the format of the options" in log.text


@pytest.mark.parametrize("flip", FLIPS)
def test_every_flip_moves_the_corners_as_its_name_says(flip: int, tmp_path: Path) -> None:
    corners = {
        0: "abcd",
        1: "bdac",
        2: "dcba",
        3: "cadb",
        4: "badc",
        5: "dbca",
        6: "cdab",
        7: "acbd",
    }  # upper left, upper right, lower left, lower right
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0], image[0, -1], image[-1, 0], image[-1, -1] = (ord(c) for c in "abcd")
    turned = flip_image(image, flip)
    assert "".join(chr(turned[y, x, 0]) for y in (0, -1) for x in (0, -1)) == corners[flip]
    assert turned.flags.c_contiguous
    with open_stand_in(
        write_video(tmp_path / "cam.avi"), capture=CaptureOptions(flip=flip)
    ) as camera:
        assert next(iter(camera)).image.shape == (
            (96, 64, 3) if flip in TRANSPOSING_FLIPS else (64, 96, 3)
        )


@pytest.mark.parametrize(
    ("delay_ns", "trusted"),
    [(0, True), (40_000_000, True), (MAX_DELAY_NS + 1, False), (-1_000_000, False)],
)
def test_a_drivers_time_stamp_counts_only_on_the_monotonic_clock(
    delay_ns: int, trusted: bool
) -> None:
    now = 5_000_000_000_000
    assert driver_time((now - delay_ns) / 1e6, now) == (now - delay_ns if trusted else now)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_camera_that_may_not_be_read_names_the_group_to_join(tmp_path: Path) -> None:
    device = write_video(tmp_path / "cam.avi")
    device.chmod(0)
    with pytest.raises(SystemProblem, match="usermod -aG video"):
        open_stand_in(device)
