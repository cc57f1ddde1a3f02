"""GStreamer pipelines as text, by pure functions: each can be read, tested and run by hand.

All end alike: a leaky queue of one frame, then the only copy on the CPU, then an appsink that keeps
the newest frame and never waits. On a Jetson nvv4l2decoder decodes, and nvvidconv scales and turns.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from urllib.parse import unquote

from finedge.errors import UsageError
from finedge.runtime.sources.address import split, without_password
from finedge.runtime.sources.base import TRANSPOSING_FLIPS, CaptureOptions

SINK = "finedge"
QUEUE = "queue max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream"
NEWEST = {"max-buffers": "1", "drop": "true", "sync": "false"}
LATENCY_MS = 100
CSI_SIZE, CSI_FPS = (1280, 720), 30.0
# videoflip's names for the flips of `CaptureOptions`, which are nvvidconv's numbers.
DIRECTIONS = {1: "90l", 2: "180", 3: "90r", 4: "horiz", 5: "ur-ll", 6: "vert", 7: "ul-lr"}
DEPAY = {codec: f"rtp{codec}depay ! {codec}parse" for codec in ("h264", "h265")}
SOFTWARE = {"h264": "avdec_h264", "h265": "avdec_h265"}
NTSC_ROUNDING = 0.005  # 29.97 is written for 30000/1001


def csi(sensor: int, options: CaptureOptions, *, mode: int | None = None) -> str:
    """Return the pipeline of a CSI camera of a Jetson. The default is 1280x720 at 30 frames/s.

    Args:
        sensor: its number.
        options: size, rate and flip.
        mode: the mode of the sensor, as `nvarguscamerasrc` numbers them.
    """
    has_size = options.width and options.height
    width, height = (options.width, options.height) if has_size else CSI_SIZE
    camera = f"nvarguscamerasrc sensor-id={sensor}"
    if mode is not None:
        camera += f" sensor-mode={mode}"
    size = f"width={width},height={height}"
    rate = f"framerate={_rate(options.fps or CSI_FPS)}"
    caps = f"video/x-raw(memory:NVMM),format=NV12,{size},{rate}"
    transform = CaptureOptions(width, height, options.fps, options.flip)
    return _join(camera, caps, _transform(transform, jetson=True), _ending())


def rtsp(uri: str, options: CaptureOptions, *, codec: str | None = None, jetson: bool) -> str:
    """Return the pipeline of an RTSP stream over TCP.

    Args:
        uri: of the stream.
        options: size, flip and latency.
        codec: h264 or h265. None: `decodebin` chooses, and takes nvv4l2decoder where there is one.
        jetson: decode, scale and turn in hardware.
    """
    latency = LATENCY_MS if options.latency_ms is None else options.latency_ms
    source = f"rtspsrc {_location(uri)} protocols=tcp latency={latency}"
    decoder = "decodebin" if codec is None else _decoder(codec, jetson=jetson)
    transform = _transform(options, jetson=jetson)
    return _join(source, "application/x-rtp,media=video", decoder, transform, _ending())


def v4l2(device: str, options: CaptureOptions, *, jetson: bool) -> str:
    """Return the pipeline of a V4L2 camera that sends raw frames."""
    return _from_device(device, "video/x-raw", options=options, jetson=jetson)


def usb_mjpeg(device: str, options: CaptureOptions, *, jetson: bool) -> str:
    """Return the pipeline of a USB camera that sends JPEG, as usual above 640x480."""
    decoder = "jpegparse ! nvv4l2decoder mjpeg=true" if jetson else "jpegdec"
    return _from_device(device, "image/jpeg", decoder=decoder, options=options, jetson=jetson)


def complete(text: str) -> str:
    """Return the pipeline of a user whose appsink delivers RGB, and the newest frame.

    A property that the user wrote stays.

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
    written = {word.partition("=")[0] for word in words[1:]}
    properties = {"name": SINK} | NEWEST
    words += [f"{key}={value}" for key, value in properties.items() if key not in written]
    return _join(head.strip(), "videoconvert", "video/x-raw,format=RGB", " ".join(words))


def sink_of(pipeline: str) -> str:
    """Return the name of the appsink that a pipeline ends in."""
    names = re.findall(r"\bname=(\S+)", pipeline.rpartition("!")[2])
    return names[-1] if names else SINK


def _from_device(
    device: str, media_type: str, *, decoder: str = "", options: CaptureOptions, jetson: bool
) -> str:
    caps = [media_type, *_size(options.width, options.height)]
    if options.fps:
        caps.append(f"framerate={_rate(options.fps)}")
    transform = _transform(CaptureOptions(flip=options.flip), jetson=jetson)
    source = f"v4l2src device={_quoted(device)}"
    return _join(source, ",".join(caps), decoder, transform, _ending())


def _decoder(codec: str, *, jetson: bool) -> str:
    if codec not in DEPAY:
        raise UsageError(f"codec '{codec}'", expected=", ".join(DEPAY))
    hardware = "nvv4l2decoder enable-max-performance=true"
    return _join(DEPAY[codec], hardware if jetson else SOFTWARE[codec])


def _transform(options: CaptureOptions, *, jetson: bool) -> str:
    """Return the elements that scale and flip; empty where there is nothing to do."""
    width, height, flip = options.width, options.height, options.flip
    if jetson:
        if flip in TRANSPOSING_FLIPS:
            width, height = height, width
        converter = f"nvvidconv flip-method={flip}" if flip else "nvvidconv"
        return _join(converter, ",".join(["video/x-raw", "format=RGBA", *_size(width, height)]))
    caps = ",".join(["video/x-raw", *_size(width, height)])
    scaler = _join("videoscale", caps) if width else ""
    return _join(scaler, f"videoflip video-direction={DIRECTIONS[flip]}" if flip else "")


def _ending() -> str:
    properties = " ".join(f"{key}={value}" for key, value in NEWEST.items())
    sink = f"appsink name={SINK} {properties}"
    return _join(QUEUE, "videoconvert", "video/x-raw,format=RGB", sink)


def _join(*elements: str) -> str:
    return " ! ".join(element for element in elements if element)


def _size(width: int | None, height: int | None) -> list[str]:
    return [f"width={width}", f"height={height}"] if width and height else []


def _rate(fps: float) -> str:
    ntsc = Fraction(1000 * math.ceil(fps), 1001)
    fraction = ntsc if abs(ntsc - fps) < NTSC_ROUNDING else Fraction(fps).limit_denominator(1001)
    return f"{fraction.numerator}/{fraction.denominator}"


def _location(uri: str) -> str:
    """Return address, user and password as properties.

    GStreamer splits an address at the first @, which may belong to the password.
    """
    parts = split(uri)
    location = f"location={_quoted(without_password(parts))}"
    if parts.username is None:
        return location
    user, password = unquote(parts.username), unquote(parts.password or "")
    return f"{location} user-id={_quoted(user)} user-pw={_quoted(password)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
