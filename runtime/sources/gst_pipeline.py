"""A running GStreamer pipeline as a connection, through python3-gi."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import SourceLost, SystemProblem, UsageError
from finedge.runtime.sources import gst_text
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import CapturedFrame, EndOfStream, SourceInfo, silence
from finedge.runtime.sources.capture_time import trusted_stamp
from finedge.runtime.sources.deadline import Deadline

OPEN_TIMEOUT_S = 10.0  # a CSI sensor takes seconds to start
PARSERS = ("h264parse", "h265parse")  # the frames after them carry a flag: key frame or not
POLL_NS = 100_000_000
PACKAGES = (
    "sudo apt-get install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-libav "
    "gstreamer1.0-plugins-{base,good,bad}"
)
DEBUG = "look at the pipeline's messages with GST_DEBUG=2"


class GstPipeline:
    """A running pipeline. One whose sources are not live gives every frame, then `EndOfStream`.

    Args:
        gst: the started `Gst` module.
        text: of the pipeline; it ends in an appsink of RGB.
        kind: as of `SourceInfo`.
        uri: as of `SourceInfo`, without a password.
        timeout_s: the longest wait for a frame; for the first one `OPEN_TIMEOUT_S` at least.
    """

    def __init__(self, gst: Any, text: str, *, kind: str, uri: str, timeout_s: float) -> None:
        self._gst, self._name, self._timeout_s = gst, uri, timeout_s
        self._closed = threading.Event()
        self._pipeline = _parse(gst, text, uri=uri)
        _drop_until_key_frame(gst, self._pipeline)
        self._final_message: Any | None = None  # an error, or the end
        self._bus = self._pipeline.get_bus()
        self._sink = self._pipeline.get_by_name(gst_text.sink_of(text))
        try:
            self.live = self._start()
            self._first: Any | None = self._pull(max(OPEN_TIMEOUT_S, timeout_s))
            self.info = _info(self._first, kind=kind, uri=uri)
        except BaseException:
            self.close()
            raise

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None once closed."""
        sample, self._first = self._first or self._pull(self._timeout_s), None
        if sample is None:
            return None
        start = time.monotonic_ns()
        image = _image(self._gst, sample)
        captured_ns = self._capture_time(sample.get_buffer().pts, start)
        decode_ms = (time.monotonic_ns() - start) / 1e6
        return CapturedFrame(captured_ns, image, decode_ms, self._seconds(sample))

    def close(self) -> None:
        """Stop the pipeline, and with it a `read` that waits."""
        self._closed.set()
        self._pipeline.set_state(self._gst.State.NULL)

    def _start(self) -> bool:
        """Start, and return whether the pipeline is live. Only a live one drops frames."""
        change = self._pipeline.set_state(self._gst.State.PAUSED)
        live = bool(change == self._gst.StateChangeReturn.NO_PREROLL)
        if not live and self._sink.get_property("drop"):
            self._sink.set_property("drop", False)
        self._pipeline.set_state(self._gst.State.PLAYING)
        return live

    def _pull(self, timeout_s: float) -> Any | None:
        """Return the next sample that is not corrupted; None once closed."""
        deadline, corrupted = Deadline(timeout_s), self._gst.BufferFlags.CORRUPTED
        while not self._closed.is_set():
            sample = self._sink.emit("try-pull-sample", POLL_NS)
            self._empty_bus()
            if sample is not None and not sample.get_buffer().has_flags(corrupted):
                return sample
            if not self._closed.is_set():
                self._raise_if_ended()
            if deadline.passed:
                fix = "check the camera's cable, power and network"
                raise silence(self._name, timeout_s, fix=fix)
        return None

    def _empty_bus(self) -> None:
        """Take every message off the bus and keep the final one.

        Parsers post bit rates ten times a second, and nothing else takes these messages.
        """
        kinds = self._gst.MessageType
        message = self._bus.pop_filtered(kinds.ERROR | kinds.EOS)
        self._final_message = self._final_message or message

    def _raise_if_ended(self) -> None:
        message = self._final_message
        if message is not None and message.type == self._gst.MessageType.ERROR:
            raise _problem(self._gst, message, uri=self._name)
        if message is not None or self._sink.get_property("eos"):
            raise EndOfStream

    def _capture_time(self, stamp_ns: int, now_ns: int) -> int:
        """Return when a frame was captured, in ns on the monotonic clock.

        Live sources stamp it on the clock of the pipeline, which is the monotonic one.
        """
        if not self.live:
            return now_ns
        return trusted_stamp(self._pipeline.get_base_time() + stamp_ns, now_ns)

    def _seconds(self, sample: Any) -> float | None:
        """Return the place of a frame in a file, in s; None of a live one, or without a stamp."""
        stamp_ns, none = sample.get_buffer().pts, self._gst.CLOCK_TIME_NONE
        if self.live or stamp_ns == none:
            return None
        time_ns = sample.get_segment().to_stream_time(self._gst.Format.TIME, stamp_ns)
        return None if time_ns == none else float(time_ns / 1e9)


def _parse(gst: Any, text: str, *, uri: str) -> Any:
    parse_error = importlib.import_module("gi.repository.GLib").Error
    try:
        return gst.parse_launch(text)
    except parse_error as error:
        if error.matches(gst.ParseError.quark(), gst.ParseError.NO_SUCH_ELEMENT):
            raise SystemProblem(
                f"{uri} needs a part of GStreamer that is missing: {mask(error.message)}",
                fix=PACKAGES,
            ) from None
        raise UsageError(
            f"GStreamer cannot read '{mask(text)}': {mask(error.message)}",
            expected="a pipeline that gst-launch-1.0 runs",
        ) from None


def _drop_until_key_frame(gst: Any, pipeline: Any) -> None:
    """Keep the frames before the first key frame from the decoders.

    Decoders turn these into grey images and report them as good.
    """

    def drop_delta(pad: Any, info: Any) -> Any:
        is_delta = info.get_buffer().has_flags(gst.BufferFlags.DELTA_UNIT)
        return gst.PadProbeReturn.DROP if is_delta else gst.PadProbeReturn.REMOVE

    def add_probe(element: Any) -> None:
        factory = element.get_factory()
        if factory is not None and factory.get_name() in PARSERS:
            element.get_static_pad("src").add_probe(gst.PadProbeType.BUFFER, drop_delta)

    pipeline.connect("deep-element-added", lambda _, __, element: add_probe(element))
    elements = pipeline.iterate_recurse()
    result, element = elements.next()
    while result == gst.IteratorResult.OK:
        add_probe(element)
        result, element = elements.next()


def _problem(gst: Any, message: Any, *, uri: str) -> SourceLost | SystemProblem:
    """Return the error of an error message of GStreamer."""
    error, debug = message.parse_error()
    detail = mask(debug.splitlines()[-1]) if debug else ""
    place = f"{uri} failed in GStreamer's {message.src.get_name()}"
    text = f"{place}: {mask(error.message)} ({detail})"
    core, stream, resource = gst.CoreError, gst.StreamError, gst.ResourceError
    if error.matches(core.quark(), core.MISSING_PLUGIN) or error.matches(
        stream.quark(), stream.CODEC_NOT_FOUND
    ):
        return SystemProblem(text, fix=PACKAGES)
    if error.matches(resource.quark(), resource.NOT_AUTHORIZED):
        form = "rtsp://user:password@host/path"
        return SourceLost(text, expected=form, fix="check user and password")
    if error.matches(resource.quark(), resource.NOT_FOUND):
        return SourceLost(text, fix="check the path after the host, or the device's name")
    return SourceLost(text, fix=DEBUG)


def _info(sample: Any, *, kind: str, uri: str) -> SourceInfo:
    caps = sample.get_caps().get_structure(0)
    has_rate, numerator, denominator = caps.get_fraction("framerate")
    fps = numerator / denominator if has_rate and numerator else None
    return SourceInfo(kind, uri, None, caps.get_value("width"), caps.get_value("height"), fps)


def _image(gst: Any, sample: Any) -> NDArray[np.uint8]:
    """Return a copy of the image, uint8 [H, W, 3]. GStreamer pads the rows of RGB to 4 bytes."""
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
