from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from finedge.errors import UsageError
from finedge.runtime.sources import gst_text
from finedge.runtime.sources.base import FLIPS, TRANSPOSING_FLIPS, CaptureOptions
from finedge.runtime.sources.geometry import flip_image

URI = "rtsp://host/cam"
OPTIONS = [
    CaptureOptions(),
    CaptureOptions(64, 48, 15.0),
    CaptureOptions(flip=3),
    CaptureOptions(64, 48, 29.97, flip=5, latency_ms=0),
]
PIPELINES = {
    "csi": lambda options, jetson: gst_text.csi(0, options, mode=2),
    "rtsp": lambda options, jetson: gst_text.rtsp(URI, options, jetson=jetson),
    "rtsp h264": lambda options, jetson: gst_text.rtsp(URI, options, codec="h264", jetson=jetson),
    "rtsp h265": lambda options, jetson: gst_text.rtsp(URI, options, codec="h265", jetson=jetson),
    "v4l2": lambda options, jetson: gst_text.v4l2("/dev/video0", options, jetson=jetson),
    "usb mjpeg": lambda options, jetson: gst_text.usb_mjpeg("/dev/video0", options, jetson=jetson),
}
SCENE = "videotestsrc is-live=true num-buffers=3"
# Stand-ins for hardware. Test sources make the frames of a camera, and software elements do the
# work of a Jetson's.
STAND_INS = [
    (r"nvarguscamerasrc sensor-id=\d+ sensor-mode=\d+", SCENE),
    (r"\(memory:NVMM\)", ""),
    (
        r"rtspsrc .*? application/x-rtp,media=video ! rtph(26\d)depay",
        rf"{SCENE} ! x\1enc tune=zerolatency ! rtph\1pay ! rtph\1depay",
    ),
    (
        r"rtspsrc .*? application/x-rtp,media=video",
        f"{SCENE} ! x264enc tune=zerolatency ! rtph264pay",
    ),
    (r"v4l2src device=\S+ ! image/jpeg", f"{SCENE} ! jpegenc ! image/jpeg"),
    (r"v4l2src device=\S+", SCENE),
    (r"h(26\d)parse ! nvv4l2decoder enable-max-performance=true", r"h\1parse ! avdec_h\1"),
    (r"nvv4l2decoder mjpeg=true", "jpegdec"),
    (
        r"nvvidconv flip-method=(\d)",
        lambda match: (
            "videoscale ! videoconvert "
            f"! videoflip video-direction={gst_text.DIRECTIONS[int(match[1])]} ! videoscale"
        ),
    ),
    (r"nvvidconv", "videoscale ! videoconvert"),
]


def with_stand_ins(pipeline: str) -> str:
    for hardware, software in STAND_INS:
        pipeline = re.sub(hardware, software, pipeline)  # type: ignore[arg-type]
    return pipeline


@pytest.fixture(scope="session")
def gst_launch() -> str:
    tool, inspect = shutil.which("gst-launch-1.0"), shutil.which("gst-inspect-1.0")
    needed = ("x264enc", "x265enc", "avdec_h264", "rtspsrc", "videoflip", "h264parse")
    if (
        tool is None
        or inspect is None
        or any(
            subprocess.run([inspect, "--exists", name], check=False).returncode for name in needed
        )
    ):
        pytest.skip(f"GStreamer with {', '.join(needed)} is missing: the packages of tests/apt.txt")
    return tool


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("jetson", [True, False])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_ends_in_a_leaky_queue_and_a_sink_without_wait(
    name: str, jetson: bool, options: CaptureOptions
) -> None:
    text = PIPELINES[name](options, jetson)
    assert (
        " ! queue max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream ! " in text
    )
    assert text.endswith("appsink name=finedge max-buffers=1 drop=true sync=false")
    assert any(element.startswith("nv") for element in text.split(" ! ")) == (
        jetson or name == "csi"
    )


@pytest.mark.parametrize(
    ("name", "jetson", "options"),
    [
        (name, jetson, options)
        for name in PIPELINES
        for jetson, options in [(True, OPTIONS[0]), (True, OPTIONS[3]), (False, OPTIONS[3])]
    ],
)
def test_gst_launch_runs_every_pipeline(
    name: str, jetson: bool, options: CaptureOptions, gst_launch: str
) -> None:
    pipeline = with_stand_ins(PIPELINES[name](options, jetson))
    text = f"{pipeline} wait-on-eos=false"  # nothing takes the frames
    run = subprocess.run(
        [gst_launch, "--quiet", *text.split()],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, f"{text}\n{run.stderr}"


@pytest.mark.parametrize("flip", FLIPS)
def test_gstreamer_and_numpy_turn_alike(flip: int, gi: None) -> None:
    from finedge.runtime.sources import gstreamer

    def picture(turn: int) -> Any:
        text = with_stand_ins(
            gst_text.v4l2("/dev/video0", CaptureOptions(64, 48, flip=turn), jetson=False).replace(
                SCENE, "videotestsrc"
            )
        )
        connection = gstreamer.connect(text, kind="v4l2", uri="scene", timeout_s=5)
        frame = connection.read()
        connection.close()
        assert frame is not None
        return frame.image

    turned = flip_image(picture(0), flip)
    assert turned.shape == ((64, 48, 3) if flip in TRANSPOSING_FLIPS else (48, 64, 3))
    # Not equal: two pixels share their chroma, after a turn along the other axis.
    assert np.abs(turned.astype(int) - picture(flip)).mean() < 3


def test_a_rate_is_a_fraction() -> None:
    ntsc = gst_text.csi(0, CaptureOptions(fps=29.97))  # cameras mean 30000/1001 by it
    assert "framerate=30000/1001" in ntsc
    assert "framerate=25/2" in gst_text.csi(0, CaptureOptions(fps=12.5))
    assert "framerate=15/1" in gst_text.csi(0, CaptureOptions(fps=15.0))


def test_a_turned_csi_picture_exchanges_its_sides() -> None:
    text = gst_text.csi(1, CaptureOptions(1920, 1080, 30.0, flip=3))
    caps = "video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1"
    assert f"sensor-id=1 ! {caps} ! nvvidconv flip-method=3 ! " in text
    assert "format=RGBA,width=1080,height=1920" in text


def test_user_and_password_are_properties_of_their_own() -> None:
    text = gst_text.rtsp(
        'rtsp://me:a"b@c@host:8554/cam', CaptureOptions(latency_ms=20), jetson=False
    )
    assert (
        'location="rtsp://host:8554/cam" user-id="me" user-pw="a\\"b@c" protocols=tcp latency=20'
        in text
    )


def test_another_codec_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="codec 'av1'"):
        gst_text.rtsp(URI, CaptureOptions(), codec="av1", jetson=False)


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("videotestsrc ! appsink", "appsink name=finedge max-buffers=1 drop=true sync=false"),
        (
            "videotestsrc ! appsink sync=true name=mine drop=false ",
            "appsink sync=true name=mine drop=false max-buffers=1",
        ),
    ],
)
def test_a_users_sink_keeps_its_properties_and_gets_the_others(text: str, ending: str) -> None:
    expected = f"videotestsrc ! videoconvert ! video/x-raw,format=RGB ! {ending}"
    assert gst_text.complete(text) == expected


@pytest.mark.parametrize(
    "text", ["videotestsrc ! fakesink", "appsink", "videotestsrc ! appsink ! queue", ""]
)
def test_a_pipeline_without_an_appsink_at_its_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not end in an appsink"):
        gst_text.complete(text)


OUT_OF_RANGE = [
    {"width": 10**9, "height": 10**9},
    {"fps": 1e-308},
    {"fps": 1e308},
    {"latency_ms": 10**30},
]


@pytest.mark.parametrize(
    "options",
    [
        *OUT_OF_RANGE,
        {"width": 64},
        {"width": 0, "height": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"flip": 8},
        {"flip": -1},
        {"latency_ms": -1},
    ],
    ids=str,
)
def test_capture_options_out_of_range_are_a_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CaptureOptions(**options)
