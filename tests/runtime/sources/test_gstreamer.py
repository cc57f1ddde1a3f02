from __future__ import annotations

import threading
import time
from itertools import islice, pairwise

import numpy as np
import pytest

from finedge.errors import DataError, SystemProblem, UsageError
from finedge.runtime.sources import Frame, gst_pipeline, gstreamer, open_source

LIVE = (
    "videotestsrc is-live=true pattern=white "
    "! video/x-raw,width=63,height=31,framerate=50/1 ! appsink"
)
FILE = "videotestsrc num-buffers=12 pattern=red ! video/x-raw,width=62,height=30 ! appsink"


def test_a_live_pipeline_gives_the_newest_frames_with_capture_times(gi: None) -> None:
    with open_source(LIVE) as source:
        frames = list(islice(source, 5))
    assert source.live
    info = source.info
    assert (info.kind, info.width, info.height, info.fps) == ("gstreamer", 63, 31, 50.0)
    assert frames[0].image.shape == (31, 63, 3)
    assert (frames[0].image > 250).all()
    assert all(a.captured_ns < b.captured_ns <= time.monotonic_ns() for a, b in pairwise(frames))


def test_a_pipeline_that_is_not_live_gives_every_picture_and_ends(gi: None) -> None:
    with open_source(FILE) as source:
        frames = []
        for frame in source:
            time.sleep(0.005)  # slower than the source: nothing may be dropped
            frames.append(frame)
    assert not source.live
    assert [f.index for f in frames] == list(range(12))
    assert np.abs(frames[-1].image.reshape(-1, 3).mean(0) - (254, 0, 0)).max() < 5


def test_a_frame_of_a_file_has_its_presentation_time(gi: None) -> None:
    caps = "video/x-raw,width=30,height=8,framerate=10/1"
    with open_source(f"videotestsrc num-buffers=4 ! {caps} ! appsink") as source:
        assert [frame.seconds for frame in source] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_pictures_keep_their_order_of_colours(gi: None) -> None:
    caps = "video/x-raw,format=BGR,width=30,height=8"
    text = f"videotestsrc num-buffers=1 pattern=blue ! {caps} ! appsink"
    with open_source(text) as source:
        (frame,) = source
    assert frame.image[0, 0].argmax() == 2


def test_a_missing_element_says_what_to_install(gi: None) -> None:
    with pytest.raises(SystemProblem, match=r"nosuchelement[\s\S]*to do: sudo apt-get install"):
        open_source("nosuchelement ! appsink")


def test_a_text_that_is_no_pipeline_is_refused_without_its_password(gi: None) -> None:
    with pytest.raises(UsageError, match="GStreamer cannot read") as error:
        open_source("rtspsrc user-pw=s3cret nosuchproperty=1 ! appsink")
    assert "s3cret" not in str(error.value)


def test_a_missing_file_is_reported(gi: None) -> None:
    with pytest.raises(SystemProblem, match="failed in GStreamer's"):
        open_source("filesrc location=/no/such/file ! decodebin ! appsink")


def test_a_pipeline_without_a_frame_is_reported(gi: None) -> None:
    with pytest.raises(SystemProblem, match="ends without a picture"):
        open_source("videotestsrc num-buffers=0 ! appsink")


def test_a_silent_pipeline_is_an_error_after_its_time_out(
    gi: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gst_pipeline, "OPEN_TIMEOUT_S", 0.2)
    with pytest.raises(SystemProblem, match=r"none came in 0\.3 s"):
        open_source("videotestsrc is-live=true ! valve drop=true ! appsink", timeout_s=0.3)


def test_a_broken_file_is_a_data_error_after_its_last_picture(gi: None) -> None:
    text = "videotestsrc num-buffers=20 ! identity error-after=10 ! appsink"
    frames = list[Frame]()
    with open_source(text) as source, pytest.raises(DataError):
        frames.extend(source)
    assert 0 < len(frames) < 20


def test_a_live_pipeline_that_breaks_starts_again(gi: None) -> None:
    caps = "video/x-raw,width=32,height=8,framerate=100/1"
    sink = "appsink drop=false max-buffers=9"
    with open_source(f"videotestsrc is-live=true num-buffers=4 ! {caps} ! {sink}") as source:
        frames = list(islice(source, 10))
    assert [f.index for f in frames] == list(range(10))
    assert source.losses >= 2  # type: ignore[attr-defined]


def test_messages_of_elements_are_taken_off_the_bus(gi: None) -> None:
    if not gstreamer.has("videoanalyse"):
        pytest.skip("GStreamer's videoanalyse is missing: the packages of tests/apt.txt")
    caps = "video/x-raw,width=32,height=16,framerate=100/1"
    text = f"videotestsrc is-live=true ! {caps} ! videoanalyse ! appsink"
    with open_source(text) as source:
        list(islice(source, 50))  # one message each
        bus, messages = source._connection._bus, 0  # type: ignore[attr-defined]
        while bus.pop() is not None:
            messages += 1
    assert messages < 10


def test_close_ends_a_waiting_read(gi: None) -> None:
    source = open_source(
        "videotestsrc is-live=true ! video/x-raw,framerate=1/5 ! appsink", timeout_s=60
    )
    reader = threading.Thread(target=lambda: list(source), daemon=True)
    reader.start()
    source.close()  # type: ignore[attr-defined]
    reader.join(10)
    assert not reader.is_alive()


def test_without_gstreamer_the_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "load", lambda: None)
    if gstreamer.why_not() is None:
        pytest.skip("this OpenCV was built with GStreamer")
    with pytest.raises(SystemProblem, match=r"needs GStreamer[\s\S]*apt-get install python3-gi"):
        open_source("videotestsrc ! appsink")


def test_a_csi_sensor_needs_a_jetson(gi: None) -> None:
    if gstreamer.has("nvarguscamerasrc"):
        pytest.skip("this is a Jetson")
    with pytest.raises(SystemProblem, match="nvarguscamerasrc, which only a Jetson has"):
        open_source("csi://0")


@pytest.mark.parametrize("uri", ["csi://", "csi://left", "csi://0?mode=fast", "csi://0/1"])
def test_a_csi_address_of_another_form_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="names no CSI sensor"):
        open_source(uri)
