"""A V4L2 camera (USB, or a CSI sensor with a V4L2 driver) as a live source."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from finedge.errors import SourceLost, SystemProblem
from finedge.runtime.sources.base import Frame, SourceInfo

log = logging.getLogger(__name__)

FORMS = re.compile(r"v4l2://(/.+)|(/dev/(?:video\d+|v4l/.+))|(\d{1,3})")
MAX_DRIVER_DELAY_NS = 10_000_000_000  # a driver's time stamp older than this is on another clock


class Camera:
    """Every frame of a camera; leave it to `Stream` to keep the newest.

    Raises:
        SystemProblem: there is no such camera, or it may not be read, or another program holds it.
        SourceLost: it stopped delivering (unplugged).
    """

    live = True

    def __init__(self, device: Path, *, api: int = cv2.CAP_V4L2) -> None:
        self._device, self._capture = device, _open(device, api)
        self._lock = threading.Lock()  # releasing a device while another thread reads it crashes the process
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a driver's queue would only add delay
        width, height = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo("camera", str(device), None, width, height, fps if fps > 0 else None)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera is closed; `captured_ns` is the driver's time stamp where it is on the monotonic clock."""
        index = 0
        while (frame := self._read(index)) is not None:
            yield frame
            index += 1

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A read that hangs in the driver keeps the lock; the device is then released with the process.
        if self._lock.acquire(timeout=1.0):
            self._capture.release()
            self._lock.release()

    def _read(self, index: int) -> Frame | None:
        with self._lock:
            if not self._capture.isOpened():
                return None
            grabbed = self._capture.grab()
            start = time.monotonic_ns()
            ok, image = self._capture.retrieve() if grabbed else (False, None)
            captured = captured_ns(self._capture.get(cv2.CAP_PROP_POS_MSEC), start)
        if not ok or image is None:
            raise SourceLost(f"{self._device} delivers no frames any more ({index} were read)", fix="check the cable and `dmesg`, then start again")
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        return Frame(index, captured, rgb, str(self._device), (time.monotonic_ns() - start) / 1e6)


def captured_ns(driver_ms: float, now_ns: int) -> int:
    """Return when a frame was captured: the driver's time stamp if it can be on the monotonic clock, else `now_ns`."""
    stamp = round(driver_ms * 1e6)
    return stamp if 0 <= now_ns - stamp <= MAX_DRIVER_DELAY_NS else now_ns


def open_camera(uri: str) -> Camera:
    """Open `/dev/video0`, `v4l2:///dev/video0`, or a bare digit, which is a V4L2 index."""
    match = FORMS.fullmatch(uri)
    if match is None:
        raise SystemProblem(f"'{uri}' names no V4L2 device", expected="/dev/video0")
    if match[3]:
        log.info("source '%s' is taken as V4L2 index %s: /dev/video%s", uri, match[3], match[3])
    return Camera(Path(match[1] or match[2] or f"/dev/video{match[3]}"))


def _open(device: Path, api: int) -> cv2.VideoCapture:
    if not device.exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*"))))
        raise SystemProblem(
            f"there is no camera {device}",
            expected=f"one of {there}" if there else "a V4L2 device; this machine has no /dev/video*",
            fix="plug in a camera (in a container: --device /dev/video0), or use test://",
        )
    if not os.access(device, os.R_OK):
        raise SystemProblem(f"{device} may not be read by this user", fix="sudo usermod -aG video $USER, then log in again")
    capture = cv2.VideoCapture(str(device), api)
    if not capture.isOpened():
        raise SystemProblem(
            f"{device} cannot be opened as a camera",
            expected="a V4L2 capture device",
            fix="close other programs that use it (fuser -v); try another /dev/video*",
        )
    return capture
