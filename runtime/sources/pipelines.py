"""GStreamer pipelines as text: pure functions, so that each can be read, tested and run by `gst-launch-1.0`.

All end alike: a leaky queue of one picture, then the only copy on the CPU, then an appsink that keeps the newest picture and never waits.
On a Jetson decoding, scaling and turning are done by nvv4l2decoder and nvvidconv.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from urllib.parse import unquote

from finedge.errors import UsageError
from finedge.runtime.sources.address import split, without_password
from finedge.runtime.sources.base import TURNED, CaptureOptions

SINK = "finedge"
QUEUE = "queue max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream"
NEWEST = {"max-buffers": "1", "drop": "true", "sync": "false"}
LATENCY_MS = 100
CSI_SIZE, CSI_FPS = (1280, 720), 30.0
# videoflip's names for the flips of `CaptureOptions`, which are nvvidconv's numbers.
DIRECTIONS = {1: "90l", 2: "180", 3: "90r", 4: "horiz", 5: "ur-ll", 6: "vert", 7: "ul-lr"}
DEPAY = {codec: f"rtp{codec}depay ! {codec}parse" for codec in ("h264", "h265")}
NTSC_ROUNDING = 0.005
SOFTWARE = {"h264": "avdec_h264", "h265": "avdec_h265"}


def csi(sensor: int, wish: CaptureOptions, *, mode: int | None = None) -> str:
    """Return the pipeline of a CSI camera of a Jetson; 1280x720 at 30 frames a second unless asked otherwise.

    `mode` is the sensor's mode number, as `nvarguscamerasrc` lists them.
    """
    width, height = (wish.width, wish.height) if wish.width and wish.height else CSI_SIZE
    camera = f"nvarguscamerasrc sensor-id={sensor}" + (
        "" if mode is None else f" sensor-mode={mode}"
    )
    caps = f"video/x-raw(memory:NVMM),format=NV12,width={width},height={height},framerate={_rate(wish.fps or CSI_FPS)}"
    sized = CaptureOptions(width, height, wish.fps, wish.flip)
    return _join(camera, caps, _convert(sized, jetson=True), QUEUE, _end())


def rtsp(uri: str, wish: CaptureOptions, *, codec: str | None = None, jetson: bool) -> str:
    """Return the pipeline of an RTSP stream over TCP.

    `codec` is h264 or h265; None lets `decodebin` look, which takes nvv4l2decoder where it is.
    """
    latency = LATENCY_MS if wish.latency_ms is None else wish.latency_ms
    source = f"rtspsrc {_location(uri)} protocols=tcp latency={latency}"
    if codec is not None and codec not in DEPAY:
        raise UsageError(f"codec '{codec}'", expected=", ".join(DEPAY))
    decoder = "decodebin"
    if codec is not None:
        decoder = _join(
            DEPAY[codec], "nvv4l2decoder enable-max-performance=true" if jetson else SOFTWARE[codec]
        )
    return _join(
        source,
        "application/x-rtp,media=video",
        decoder,
        _convert(wish, jetson=jetson),
        QUEUE,
        _end(),
    )


def v4l2(device: str, wish: CaptureOptions, *, jetson: bool) -> str:
    """Return the pipeline of a V4L2 camera that sends plain pictures."""
    caps = ",".join(["video/x-raw", *_asked(wish)])
    return _join(
        f"v4l2src device={_quoted(device)}",
        caps,
        _convert(CaptureOptions(flip=wish.flip), jetson=jetson),
        QUEUE,
        _end(),
    )


def usb_mjpeg(device: str, wish: CaptureOptions, *, jetson: bool) -> str:
    """Return the pipeline of a USB camera that sends JPEG pictures: most do above 640x480."""
    caps = ",".join(["image/jpeg", *_asked(wish)])
    decoder = "jpegparse ! nvv4l2decoder mjpeg=true" if jetson else "jpegdec"
    return _join(
        f"v4l2src device={_quoted(device)}",
        caps,
        decoder,
        _convert(CaptureOptions(flip=wish.flip), jetson=jetson),
        QUEUE,
        _end(),
    )


def complete(text: str) -> str:
    """Return a user's pipeline with its last appsink made to hand over RGB, and the newest picture unless its properties say otherwise.

    Raises:
        UsageError: it does not end in an appsink.
    """
    head, _, tail = text.rpartition("!")
    words = tail.split()
    if not head.strip() or not words or words[0] != "appsink":
        raise UsageError(
            "the GStreamer pipeline does not end in an appsink",
            expected="'videotestsrc is-live=true ! appsink'",
        )
    named = {word.partition("=")[0] for word in words[1:]}
    words += [
        f"{key}={value}" for key, value in ({"name": SINK} | NEWEST).items() if key not in named
    ]
    return _join(head.strip(), "videoconvert", "video/x-raw,format=RGB", " ".join(words))


def sink_of(pipeline: str) -> str:
    """Return the name of the appsink that a pipeline ends in."""
    names = re.findall(r"\bname=(\S+)", pipeline.rpartition("!")[2])
    return names[-1] if names else SINK


def _convert(wish: CaptureOptions, *, jetson: bool) -> str:
    """Return the elements that scale and turn; none where there is nothing to do."""
    size = (wish.width, wish.height)
    if jetson:
        caps = ["video/x-raw", "format=RGBA", *_size(size[::-1] if wish.flip in TURNED else size)]
        return _join(
            "nvvidconv" + (f" flip-method={wish.flip}" if wish.flip else ""), ",".join(caps)
        )
    scaled = _join("videoscale", ",".join(["video/x-raw", *_size(size)])) if wish.width else ""
    return _join(scaled, f"videoflip video-direction={DIRECTIONS[wish.flip]}" if wish.flip else "")


def _end() -> str:
    return _join(
        "videoconvert",
        "video/x-raw,format=RGB",
        " ".join(["appsink", f"name={SINK}", *(f"{k}={v}" for k, v in NEWEST.items())]),
    )


def _join(*parts: str) -> str:
    return " ! ".join(part for part in parts if part)


def _size(size: tuple[int | None, int | None]) -> list[str]:
    return [f"width={size[0]}", f"height={size[1]}"] if size[0] and size[1] else []


def _asked(wish: CaptureOptions) -> list[str]:
    return [
        *_size((wish.width, wish.height)),
        *([f"framerate={_rate(wish.fps)}"] if wish.fps else []),
    ]


def _rate(fps: float) -> str:
    ntsc = Fraction(1000 * math.ceil(fps), 1001)  # 29.97 is 30000/1001
    fraction = ntsc if abs(ntsc - fps) < NTSC_ROUNDING else Fraction(fps).limit_denominator(1001)
    return f"{fraction.numerator}/{fraction.denominator}"


def _location(uri: str) -> str:
    """Return address, user and password as properties: GStreamer splits an address at the first @, which may belong to the password."""
    parts = split(uri)
    location = f"location={_quoted(without_password(parts))}"
    if parts.username is None:
        return location
    return f"{location} user-id={_quoted(unquote(parts.username))} user-pw={_quoted(unquote(parts.password or ''))}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
