"""Cameras of this machine: V4L2 (USB, or a CSI sensor with a V4L2 driver), and CSI of a Jetson."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import cv2

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.sources import gst_text, gstreamer
from finedge.runtime.sources.base import (
    DEFAULT_CAPTURE,
    CaptureOptions,
    Connection,
    Source,
    check_reader,
    first_frame_required,
)
from finedge.runtime.sources.capture_time import driver_time
from finedge.runtime.sources.opencv import OpenCvConnection, info_of
from finedge.runtime.sources.reconnect import ReconnectingSource

log = logging.getLogger(__name__)

FORMS = re.compile(r"(?:v4l2://(/[^?]+)|(/dev/(?:video\d+|v4l/[^?]+))|(\d{1,3}))(\?codec=mjpeg)?")
CSI = re.compile(r"csi://(\d{1,2})(?:\?mode=(\d{1,2}))?")
CSI_FORM = "csi://0 or csi://0?mode=2"
TIMEOUT_S = 5.0
READERS = ("opencv", "gstreamer")


def open_camera(
    uri: str,
    *,
    capture: CaptureOptions = DEFAULT_CAPTURE,
    reconnect: bool = True,
    api: int = cv2.CAP_V4L2,
    via: str = "opencv",
) -> Source:
    """Open a V4L2 camera: `/dev/video0`, `v4l2:///dev/video0`, or a bare number, its V4L2 index.

    Args:
        uri: the device. /dev/v4l/by-id/... stays the same when a camera is plugged in again.
            `?codec=mjpeg` sets the camera to JPEG.
        capture: size, rate and flip. A warning is logged where the camera delivers another format.
        reconnect: False to raise `SourceLost` when the camera goes away; else it is tried until it
            is back.
        api: OpenCV's backend for it.
        via: `opencv` or `gstreamer`.

    Raises:
        SystemProblem: there is no such camera, this user may not read it, or another program holds
            it.
    """
    match = FORMS.fullmatch(uri)
    if match is None:
        raise SystemProblem(f"'{uri}' names no V4L2 device", expected="/dev/video0")
    if match[3]:
        log.info("source '%s' is taken as V4L2 index %s: /dev/video%s", uri, match[3], match[3])
    device, mjpeg = Path(match[1] or match[2] or f"/dev/video{match[3]}"), match[4] is not None
    check_reader(via, READERS)

    def connect() -> Connection:
        _check(device)
        if via == "gstreamer":
            return _connect_gstreamer(device, capture, mjpeg=mjpeg)
        return _connect_opencv(device, capture, api=api, mjpeg=mjpeg)

    return ReconnectingSource(connect, reconnect=reconnect)


def open_csi(
    uri: str, *, capture: CaptureOptions = DEFAULT_CAPTURE, reconnect: bool = True
) -> Source:
    """Open a CSI sensor of a Jetson: `csi://0`. The default is 1280x720 at 30 frames a second.

    Args: as of `open_camera`; `?mode=2` chooses a mode of the sensor.

    Raises:
        SystemProblem: this machine is not a Jetson, or the sensor does not answer.
    """
    match = CSI.fullmatch(uri)
    if match is None:
        raise UsageError(f"'{uri}' names no CSI sensor", expected=CSI_FORM)
    if not gstreamer.has("nvarguscamerasrc"):
        raise SystemProblem(
            f"{uri} needs GStreamer's nvarguscamerasrc, which only a Jetson has",
            fix="on a Jetson: sudo apt-get install nvidia-l4t-gstreamer python3-gi; "
            "elsewhere use /dev/video0",
        )
    mode = int(match[2]) if match[2] else None
    pipeline = gst_text.csi(int(match[1]), capture, mode=mode)
    return ReconnectingSource(lambda: _start(pipeline, kind="csi", uri=uri), reconnect=reconnect)


def _connect_opencv(
    device: Path, options: CaptureOptions, *, api: int, mjpeg: bool
) -> OpenCvConnection:
    reader = cv2.VideoCapture(str(device), api)
    if not reader.isOpened():
        raise SystemProblem(
            f"{device} cannot be opened as a camera",
            expected="a V4L2 capture device",
            fix="close other programs that use it (fuser -v); try another /dev/video*",
        )
    _set_format(reader, options, device=device, mjpeg=mjpeg)
    return OpenCvConnection(
        reader,
        info_of(reader, kind="camera", uri=str(device)),
        transform=CaptureOptions(flip=options.flip),
        capture_time=driver_time,
        fix="check the cable and `dmesg`, then start again",
    )


def _connect_gstreamer(device: Path, options: CaptureOptions, *, mjpeg: bool) -> Connection:
    write_text = gst_text.usb_mjpeg if mjpeg else gst_text.v4l2
    pipeline = write_text(str(device), options, jetson=gstreamer.has("nvvidconv"))
    return _start(pipeline, kind="camera", uri=str(device))


def _start(pipeline: str, *, kind: str, uri: str) -> Connection:
    with first_frame_required(
        uri,
        expected="a camera that sends pictures",
        fix="check the ribbon or cable; `finedge doctor` lists cameras",
    ):
        return gstreamer.connect(pipeline, kind=kind, uri=uri, timeout_s=TIMEOUT_S)


def _set_format(
    reader: cv2.VideoCapture, options: CaptureOptions, *, device: Path, mjpeg: bool
) -> None:
    """Set the format of a camera. Where it takes another one, the log shows the difference."""
    reader.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the queue of a driver would only add delay
    if mjpeg:
        reader.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    settings = {
        cv2.CAP_PROP_FRAME_WIDTH: options.width,
        cv2.CAP_PROP_FRAME_HEIGHT: options.height,
        cv2.CAP_PROP_FPS: options.fps,
    }
    for key, value in settings.items():
        if value is not None:
            reader.set(key, value)
    actual = [reader.get(key) for key in settings]
    pairs = zip(settings.values(), actual, strict=True)
    if any(value is not None and abs(value - real) > 0.5 for value, real in pairs):
        log.warning(
            "%s delivers %gx%g at %g frames/s, which is not the format of the options; "
            "?codec=mjpeg may allow more; `v4l2-ctl --list-formats-ext` lists its formats",
            device,
            *actual,
        )


def _check(device: Path) -> None:
    if not device.exists():
        devices = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*"))))
        none = "a V4L2 device; this machine has no /dev/video*"
        raise SystemProblem(
            f"there is no camera {device}",
            expected=f"one of {devices}" if devices else none,
            fix="plug in a camera (in a container: --device /dev/video0), or use test://",
        )
    if not os.access(device, os.R_OK):
        raise SystemProblem(
            f"{device} may not be read by this user",
            fix="sudo usermod -aG video $USER, then log in again",
        )
