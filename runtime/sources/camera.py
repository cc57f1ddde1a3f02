"""Cameras of this machine: V4L2 (USB, or a CSI sensor with a V4L2 driver) and the CSI sensors of a Jetson."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import cv2

from finedge.errors import SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import gstreamer, pipelines
from finedge.runtime.sources.base import AS_IT_COMES, CaptureOptions, Connection, Source
from finedge.runtime.sources.capture import Capture, info_of
from finedge.runtime.sources.reconnect import Reconnecting

log = logging.getLogger(__name__)

FORMS = re.compile(r"(?:v4l2://(/[^?]+)|(/dev/(?:video\d+|v4l/[^?]+))|(\d{1,3}))(\?codec=mjpeg)?")
CSI = re.compile(r"csi://(\d{1,2})(?:\?mode=(\d{1,2}))?")
CSI_FORM = "csi://0 or csi://0?mode=2"
MAX_DRIVER_DELAY_NS = 10_000_000_000  # a driver's time stamp older than this is on another clock
TIMEOUT_S = 5.0
VIAS = ("opencv", "gstreamer")


def captured_ns(driver_ms: float, now_ns: int) -> int:
    """Return when a frame was captured: the driver's time stamp if it can be on the monotonic clock, else `now_ns`."""
    stamp = round(driver_ms * 1e6)
    return stamp if 0 <= now_ns - stamp <= MAX_DRIVER_DELAY_NS else now_ns


def open_camera(
    uri: str,
    *,
    wish: CaptureOptions = AS_IT_COMES,
    reconnect: bool = True,
    api: int = cv2.CAP_V4L2,
    via: str = "opencv",
) -> Source:
    """Open `/dev/video0`, `v4l2:///dev/video0`, or a bare digit, which is a V4L2 index; `?codec=mjpeg` asks the camera for JPEG.

    Args:
        uri: the device; /dev/v4l/by-id/... stays the same when a camera is plugged in again.
        wish: size, rate and flip; a camera that gives something else is warned of.
        reconnect: False to raise `SourceLost` when it goes away; else it is looked for until it is back.
        api: OpenCV's way of reading it.
        via: `opencv` or `gstreamer`.

    Raises:
        SystemProblem: there is no such camera, or it may not be read, or another program holds it.
    """
    match = FORMS.fullmatch(uri)
    if match is None:
        raise SystemProblem(f"'{uri}' names no V4L2 device", expected="/dev/video0")
    if match[3]:
        log.info("source '%s' is taken as V4L2 index %s: /dev/video%s", uri, match[3], match[3])
    device, mjpeg = Path(match[1] or match[2] or f"/dev/video{match[3]}"), match[4] is not None
    if via not in VIAS:
        raise UsageError(f"via '{via}'", expected=", ".join(VIAS))
    if via == "gstreamer":
        return Reconnecting(
            lambda: _connect_gstreamer(device, wish, mjpeg=mjpeg), reconnect=reconnect
        )
    return Reconnecting(lambda: _connect(device, wish, api=api, mjpeg=mjpeg), reconnect=reconnect)


def open_csi(uri: str, *, wish: CaptureOptions = AS_IT_COMES, reconnect: bool = True) -> Source:
    """Open `csi://0`, the first CSI sensor of a Jetson, at 1280x720 and 30 frames a second unless asked otherwise.

    Args: as of `open_camera`; `?mode=2` chooses a mode of the sensor.

    Raises:
        SystemProblem: this is no Jetson, or the sensor does not answer.
    """
    match = CSI.fullmatch(uri)
    if match is None:
        raise UsageError(f"'{uri}' names no CSI sensor", expected=CSI_FORM)
    if not gstreamer.has("nvarguscamerasrc"):
        raise SystemProblem(
            f"{uri} needs GStreamer's nvarguscamerasrc, which only a Jetson has",
            fix="on a Jetson: sudo apt-get install nvidia-l4t-gstreamer python3-gi; elsewhere use /dev/video0",
        )
    pipeline = pipelines.csi(int(match[1]), wish, mode=int(match[2]) if match[2] else None)
    return Reconnecting(lambda: _started(pipeline, "csi", uri), reconnect=reconnect)


def _connect(device: Path, wish: CaptureOptions, *, api: int, mjpeg: bool) -> Connection:
    _check(device)
    capture = cv2.VideoCapture(str(device), api)
    if not capture.isOpened():
        raise SystemProblem(
            f"{device} cannot be opened as a camera",
            expected="a V4L2 capture device",
            fix="close other programs that use it (fuser -v); try another /dev/video*",
        )
    _ask(capture, device, wish, mjpeg=mjpeg)
    fix = "check the cable and `dmesg`, then start again"
    return Capture(
        capture,
        info_of(capture, "camera", str(device)),
        wish=wish,
        captured_ns=captured_ns,
        fix=fix,
    )


def _connect_gstreamer(device: Path, wish: CaptureOptions, *, mjpeg: bool) -> Connection:
    _check(device)
    pipeline = (pipelines.usb_mjpeg if mjpeg else pipelines.v4l2)(
        str(device), wish, jetson=gstreamer.has("nvvidconv")
    )
    return _started(pipeline, "camera", str(device))


def _started(pipeline: str, kind: str, uri: str) -> Connection:
    try:
        return gstreamer.connect(pipeline, kind=kind, uri=uri, timeout_s=TIMEOUT_S)
    except SourceLost as error:  # never seen is not lost
        raise SystemProblem(
            error.what,
            expected="a camera that sends pictures",
            fix="check the ribbon or cable; `finedge doctor` lists cameras",
        ) from error


def _ask(capture: cv2.VideoCapture, device: Path, wish: CaptureOptions, *, mjpeg: bool) -> None:
    """Ask a camera for a format; it takes what it can, and the log says what it gives instead."""
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a driver's queue would only add delay
    if mjpeg:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    asked = {
        cv2.CAP_PROP_FRAME_WIDTH: wish.width,
        cv2.CAP_PROP_FRAME_HEIGHT: wish.height,
        cv2.CAP_PROP_FPS: wish.fps,
    }
    for key, value in asked.items():
        if value is not None:
            capture.set(key, value)
    given = [capture.get(key) for key in asked]
    if any(
        value is not None and abs(value - got) > 0.5
        for value, got in zip(asked.values(), given, strict=True)
    ):
        log.warning(
            "%s gives %gx%g at %g frames/s and not what was asked; more may come with ?codec=mjpeg; see `v4l2-ctl --list-formats-ext`",
            device,
            *given,
        )


def _check(device: Path) -> None:
    if not device.exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*"))))
        raise SystemProblem(
            f"there is no camera {device}",
            expected=f"one of {there}"
            if there
            else "a V4L2 device; this machine has no /dev/video*",
            fix="plug in a camera (in a container: --device /dev/video0), or use test://",
        )
    if not os.access(device, os.R_OK):
        raise SystemProblem(
            f"{device} may not be read by this user",
            fix="sudo usermod -aG video $USER, then log in again",
        )
