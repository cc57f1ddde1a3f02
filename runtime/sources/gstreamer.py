"""GStreamer where the system has it: through python3-gi, else an OpenCV that was built with it.

python3-gi is better: it reports errors and capture times.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
from functools import cache
from typing import Any

import cv2

from finedge.errors import SourceLost, SystemProblem
from finedge.runtime.sources import gst_text
from finedge.runtime.sources.address import mask
from finedge.runtime.sources.base import Connection, Source, first_frame_required
from finedge.runtime.sources.gst_pipeline import DEBUG, PACKAGES, GstPipeline
from finedge.runtime.sources.opencv import OpenCvConnection, info_of
from finedge.runtime.sources.reconnect import ReconnectingSource

TIMEOUT_S = 5.0  # a silent pipeline counts as dead
INSTALL = f"{PACKAGES}; make the venv with --system-site-packages"


@cache
def load() -> Any | None:
    """Return the started `Gst` module, or None where python3-gi or GStreamer is missing."""
    try:
        gi = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError, AttributeError):  # AttributeError: another folder named gi
        return None
    gst.init(None)
    return gst


def why_not() -> str | None:
    """Return why this machine cannot read a GStreamer pipeline, or None."""
    if load() is not None or cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return None
    return "neither python3-gi nor an OpenCV with GStreamer can be imported"


@cache
def has(element: str) -> bool:
    """Return whether the installed GStreamer has an element."""
    gst = load()
    if gst is not None:
        return bool(gst.ElementFactory.find(element))
    tool = shutil.which("gst-inspect-1.0")
    if tool is None:
        return False
    command = [tool, "--exists", element]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def connect(pipeline: str, *, kind: str, uri: str, timeout_s: float) -> Connection:
    """Start a pipeline that ends in an appsink of RGB, and wait for its first frame.

    Args:
        pipeline: its text.
        kind: as of `SourceInfo`.
        uri: as of `SourceInfo`, without a password.
        timeout_s: the longest wait for a frame.

    Raises:
        UsageError: GStreamer cannot read the text.
        SystemProblem: GStreamer or one of its elements is missing.
        SourceLost: the pipeline ran and broke, or no frame came.
    """
    gst = load()
    if gst is not None:
        return GstPipeline(gst, pipeline, kind=kind, uri=uri, timeout_s=timeout_s)
    reason = why_not()
    if reason is not None:
        raise SystemProblem(f"{uri} needs GStreamer: {reason}", fix=INSTALL)
    reader = cv2.VideoCapture(pipeline.replace("format=RGB ", "format=BGR "), cv2.CAP_GSTREAMER)
    if not reader.isOpened():
        raise SourceLost(
            f"{uri} cannot be opened by OpenCV's GStreamer",
            fix=f"run it by hand: gst-launch-1.0 {mask(pipeline)}",
        )
    return OpenCvConnection(reader, info_of(reader, kind=kind, uri=uri), fix=DEBUG)


def open_pipeline(uri: str, *, reconnect: bool = True, timeout_s: float = TIMEOUT_S) -> Source:
    """Open the text of a GStreamer pipeline that ends in `appsink`.

    It is live where its sources are; else every frame comes, up to the end.

    Args:
        uri: the text.
        reconnect: False to raise `SourceLost` at the first loss.
        timeout_s: the silence after which the pipeline counts as lost.

    Raises:
        UsageError: GStreamer cannot read the text.
        SystemProblem: GStreamer or an element is missing, or no frame came.
    """
    pipeline, name = gst_text.complete(uri), mask(uri)

    def start() -> Connection:
        with first_frame_required(f"'{name}'", end_fix=f"run it by hand: gst-launch-1.0 {name}"):
            return connect(pipeline, kind="gstreamer", uri=name, timeout_s=timeout_s)

    return ReconnectingSource(start, reconnect=reconnect)
