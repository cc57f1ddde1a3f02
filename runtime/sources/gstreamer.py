"""GStreamer where the system has it: by python3-gi, which tells errors and capture times, else by an OpenCV that was built with it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
import time
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import pipelines
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import (
    CaptureOptions,
    Connection,
    EndOfStream,
    Shot,
    Source,
    SourceInfo,
)
from finedge.runtime.sources.capture import Capture, info_of
from finedge.runtime.sources.reconnect import Reconnecting

OPEN_TIMEOUT_S = 10.0  # a CSI sensor takes seconds to start
TIMEOUT_S = 5.0  # a silent pipeline is taken to be dead
PARSERS = ("h264parse", "h265parse")  # behind these, key frames can be told from the others
POLL_NS = 100_000_000
MAX_DELAY_NS = 10_000_000_000  # a time stamp older than this is on another clock
PACKAGES = "sudo apt-get install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-libav gstreamer1.0-plugins-{base,good,bad}"


@cache
def load() -> Any | None:
    """Return the started `Gst` module, or None where python3-gi or GStreamer is missing."""
    try:
        gi = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError, AttributeError):  # the last: some other folder named gi
        return None
    gst.init(None)
    return gst


def why_not() -> str | None:
    """Return why no GStreamer pipeline can be read here, or None."""
    if load() is not None or cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return None
    return "neither python3-gi nor an OpenCV with GStreamer can be imported"


@cache
def has(element: str) -> bool:
    """Return whether GStreamer here has an element."""
    gst = load()
    if gst is not None:
        return bool(gst.ElementFactory.find(element))
    tool = shutil.which("gst-inspect-1.0")
    return (
        tool is not None
        and subprocess.run([tool, "--exists", element], check=False, capture_output=True).returncode
        == 0
    )


def connect(pipeline: str, *, kind: str, uri: str, timeout_s: float) -> Connection:
    """Start a pipeline that ends in an appsink of RGB, and wait for its first picture.

    Raises:
        UsageError: GStreamer cannot read the text.
        SystemProblem: GStreamer or one of its elements is missing.
        SourceLost: the pipeline ran and broke, or no picture came.
    """
    gst = load()
    if gst is not None:
        return Pipeline(gst, pipeline, kind=kind, uri=uri, timeout_s=timeout_s)
    if why_not() is not None:
        raise SystemProblem(
            f"{uri} needs GStreamer: {why_not()}",
            fix=f"{PACKAGES}; make the venv with --system-site-packages",
        )
    capture = cv2.VideoCapture(pipeline.replace("format=RGB ", "format=BGR "), cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceLost(
            f"{uri} cannot be opened by OpenCV's GStreamer",
            fix=f"run it by hand: gst-launch-1.0 {mask(pipeline)}",
        )
    return Capture(
        capture,
        info_of(capture, kind, uri),
        wish=CaptureOptions(),
        fix="look at the pipeline's messages with GST_DEBUG=2",
    )


class Pipeline:
    """A running pipeline read by python3-gi; one whose sources are not live gives every picture and then `EndOfStream`."""

    def __init__(self, gst: Any, text: str, *, kind: str, uri: str, timeout_s: float) -> None:
        self._gst, self._name, self._timeout_s = gst, uri, timeout_s
        self._closed = threading.Event()
        self._pipeline = _parse(gst, text, uri)
        _guard(gst, self._pipeline)
        self._last: Any | None = None  # the pipeline's last word: an error or the end
        self._bus, self._sink = (
            self._pipeline.get_bus(),
            self._pipeline.get_by_name(pipelines.sink_of(text)),
        )
        try:
            self.live = self._start()
            self._first: Any | None = self._pull(max(OPEN_TIMEOUT_S, timeout_s))
            self.info = _info(self._first, kind, uri)
        except BaseException:
            self.close()
            raise

    def read(self) -> Shot | None:
        """Return the next picture; None once closed."""
        sample, self._first = self._first or self._pull(self._timeout_s), None
        if sample is None:
            return None
        start = time.monotonic_ns()
        image = _image(self._gst, sample)
        return Shot(
            self._captured_ns(sample.get_buffer().pts, start),
            image,
            (time.monotonic_ns() - start) / 1e6,
        )

    def close(self) -> None:
        """Stop the pipeline, which also ends a waiting `read`."""
        self._closed.set()
        self._pipeline.set_state(self._gst.State.NULL)

    def _start(self) -> bool:
        """Start, and return whether the pipeline is live: only such a one drops pictures."""
        live = bool(
            self._pipeline.set_state(self._gst.State.PAUSED)
            == self._gst.StateChangeReturn.NO_PREROLL
        )
        if not live and self._sink.get_property("drop"):
            self._sink.set_property("drop", False)
        self._pipeline.set_state(self._gst.State.PLAYING)
        return live

    def _pull(self, timeout_s: float) -> Any | None:
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            sample = self._sink.emit("try-pull-sample", POLL_NS)
            self._listen()
            if sample is not None and not sample.get_buffer().has_flags(
                self._gst.BufferFlags.CORRUPTED
            ):
                return sample
            if not self._closed.is_set():
                self._raise_last()
            if time.monotonic() > deadline:
                raise SourceLost(
                    f"{self._name} delivers no frames: none came in {timeout_s:g} s",
                    fix="check the camera's cable, power and network",
                )
        return None

    def _listen(self) -> None:
        """Take every message off the bus: parsers write of bit rates ten times a second, and nobody else takes those."""
        kinds = self._gst.MessageType
        self._last = self._last or self._bus.pop_filtered(kinds.ERROR | kinds.EOS)

    def _raise_last(self) -> None:
        if self._last is not None and self._last.type == self._gst.MessageType.ERROR:
            raise _problem(self._gst, self._last, self._name)
        if self._last is not None or self._sink.get_property("eos"):
            raise EndOfStream

    def _captured_ns(self, pts: int, now_ns: int) -> int:
        """Return when a picture was captured: live sources stamp it on the pipeline's clock, which is the monotonic one."""
        stamp = self._pipeline.get_base_time() + pts
        return stamp if self.live and 0 <= now_ns - stamp <= MAX_DELAY_NS else now_ns


def open_pipeline(uri: str, *, reconnect: bool = True, timeout_s: float = TIMEOUT_S) -> Source:
    """Open a GStreamer string that ends in `appsink`: live where its sources are, else every picture up to the end.

    Raises:
        UsageError: GStreamer cannot read it.
        SystemProblem: GStreamer or an element is missing, or no picture came.
    """
    pipeline, name = pipelines.complete(uri), mask(uri)

    def start() -> Connection:
        try:
            return connect(pipeline, kind="gstreamer", uri=name, timeout_s=timeout_s)
        except EndOfStream:
            raise SystemProblem(
                f"'{name}' ends without a picture", fix=f"run it by hand: gst-launch-1.0 {name}"
            ) from None
        except SourceLost as error:  # never seen is not lost
            raise SystemProblem(error.what, expected=error.expected, fix=error.fix) from error

    return Reconnecting(start, reconnect=reconnect)


def _parse(gst: Any, text: str, uri: str) -> Any:
    error_class = importlib.import_module("gi.repository.GLib").Error
    try:
        return gst.parse_launch(text)
    except error_class as error:
        if error.matches(gst.ParseError.quark(), gst.ParseError.NO_SUCH_ELEMENT):
            raise SystemProblem(
                f"{uri} needs a part of GStreamer that is missing: {mask(error.message)}",
                fix=PACKAGES,
            ) from None
        raise UsageError(
            f"GStreamer cannot read '{mask(text)}': {mask(error.message)}",
            expected="a pipeline that gst-launch-1.0 runs",
        ) from None


def _guard(gst: Any, pipeline: Any) -> None:
    """Keep from the decoders what comes before the first key frame: of that they make grey pictures, and call them good."""

    def until_key(pad: Any, info: Any) -> Any:
        return (
            gst.PadProbeReturn.DROP
            if info.get_buffer().has_flags(gst.BufferFlags.DELTA_UNIT)
            else gst.PadProbeReturn.REMOVE
        )

    def guard(element: Any) -> None:
        factory = element.get_factory()
        if factory is not None and factory.get_name() in PARSERS:
            element.get_static_pad("src").add_probe(gst.PadProbeType.BUFFER, until_key)

    pipeline.connect("deep-element-added", lambda _, __, element: guard(element))
    elements = pipeline.iterate_recurse()
    result, element = elements.next()
    while result == gst.IteratorResult.OK:
        guard(element)
        result, element = elements.next()


def _problem(gst: Any, message: Any, uri: str) -> SourceLost | SystemProblem:
    error, debug = message.parse_error()
    text = f"{uri} failed in GStreamer's {message.src.get_name()}: {mask(error.message)} ({mask((debug or '').splitlines()[-1] if debug else '')})"
    if error.matches(gst.CoreError.quark(), gst.CoreError.MISSING_PLUGIN) or error.matches(
        gst.StreamError.quark(), gst.StreamError.CODEC_NOT_FOUND
    ):
        return SystemProblem(text, fix=PACKAGES)
    if error.matches(gst.ResourceError.quark(), gst.ResourceError.NOT_AUTHORIZED):
        return SourceLost(
            text, expected="rtsp://user:password@host/path", fix="check user and password"
        )
    if error.matches(gst.ResourceError.quark(), gst.ResourceError.NOT_FOUND):
        return SourceLost(text, fix="check the path after the host, or the device's name")
    return SourceLost(text, fix="look at the pipeline's messages with GST_DEBUG=2")


def _info(sample: Any, kind: str, uri: str) -> SourceInfo:
    caps = sample.get_caps().get_structure(0)
    known, numerator, denominator = caps.get_fraction("framerate")
    fps = numerator / denominator if known and numerator else None
    return SourceInfo(kind, uri, None, caps.get_value("width"), caps.get_value("height"), fps)


def _image(gst: Any, sample: Any) -> NDArray[np.uint8]:
    """Return a copy of the picture, uint8 [H, W, 3]; GStreamer pads the rows of RGB to four bytes."""
    caps, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
    width, height = caps.get_value("width"), caps.get_value("height")
    ok, mapped = buffer.map(gst.MapFlags.READ)
    if not ok:
        raise SourceLost("a picture of GStreamer cannot be read")
    try:
        stride = (3 * width + 3) // 4 * 4
        rows = np.frombuffer(mapped.data, np.uint8, stride * height).reshape(height, stride)
        return rows[:, : 3 * width].reshape(height, width, 3).copy()
    finally:
        buffer.unmap(mapped)
