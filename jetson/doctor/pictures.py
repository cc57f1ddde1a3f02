"""Where pictures come from: OpenCV, GStreamer and the cameras."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from finedge.commands import missing_library
from finedge.errors import SystemProblem
from finedge.runtime.machine.packages import (
    failure_text,
    is_installed,
    load_package,
    package_version,
)
from finedge.runtime.machine.sysfs import UNKNOWN, text

# The elements of a Jetson's pipelines, and the plugin file of each (package nvidia-l4t-gstreamer).
NVIDIA_ELEMENTS = {
    "nvarguscamerasrc": "nvarguscamerasrc",
    "nvvidconv": "nvvidconv",
    "nvv4l2decoder": "nvvideo4linux2",
}
CSI = "vi-output"  # NVIDIA's driver begins the name of a sensor on the CSI connector with it
INSTALL = (
    "pip install finedge "
    "(on a Jetson cv2 comes with JetPack: make the venv with --system-site-packages)"
)
# Names in the facts, and in the text of cv2.getBuildInformation().
FEATURES = {"ffmpeg": "FFMPEG", "gstreamer": "GStreamer", "v4l2": "v4l/v4l2"}


def opencv() -> dict[str, Any]:
    """Return the version of OpenCV and the video libraries that it was built with.

    FFmpeg writes videos, GStreamer reads CSI and RTSP cameras, V4L2 USB cameras.
    """
    try:
        version = package_version("cv2")
        build = load_package("cv2").getBuildInformation()
    except SystemProblem as error:
        return {"version": None, "error": error.what, "fix": _opencv_fix(error)}
    except Exception as error:
        return {"version": None, "error": failure_text(error), "fix": INSTALL}
    features = {name: built_with(build, feature) for name, feature in FEATURES.items()}
    return {"version": version, **features}


def _opencv_fix(error: SystemProblem) -> str:
    """Return what to do where OpenCV is missing, or lacks a library of the system."""
    cause = error.__cause__
    if isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError):
        return missing_library(cause).fix
    return INSTALL


def built_with(build: str, feature: str) -> bool:
    """Tell whether the text of `cv2.getBuildInformation()` says YES for a feature."""
    return re.search(rf"^\s*{re.escape(feature)}:\s+YES", build, re.MULTILINE) is not None


def gstreamer(root: Path = Path("/")) -> dict[str, Any]:
    """Return what reads GStreamer pipelines here.

    `why_not` says why no pipeline can be read, or is None. `gst_launch` and `gi` tell whether
    gst-launch-1.0 and python3-gi are installed. `elements` has NVIDIA's elements.
    """
    folders = [
        root / "usr/lib/aarch64-linux-gnu" / part
        for part in ("gstreamer-1.0", "nvidia/gstreamer-1.0")
    ]
    return {
        "why_not": _why_no_pipeline(),
        "gst_launch": (root / "usr/bin/gst-launch-1.0").exists(),
        "gi": is_installed("gi"),
        "elements": {
            name: any((f / f"libgst{file}.so").exists() for f in folders)
            for name, file in NVIDIA_ELEMENTS.items()
        },
        "argus": (root / "tmp/argus_socket").exists(),
    }


def cameras(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return the V4L2 devices.

    Each has its path, the driver's name for it, its kind (v4l2 or csi) and whether this user may
    read it.
    """
    devices = sorted(
        (root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name)
    )
    names = {path: text(root / "sys/class/video4linux" / path.name / "name") for path in devices}
    return [
        {
            "device": f"/dev/{path.name}",
            "name": name or UNKNOWN,
            "kind": "csi" if name.startswith(CSI) else "v4l2",
            "readable": os.access(path, os.R_OK),
        }
        for path, name in names.items()
    ]


def _why_no_pipeline() -> str | None:
    try:
        reason: str | None = load_package("finedge.runtime.sources.gstreamer").why_not()
    except SystemProblem as error:
        return error.what
    except Exception as error:
        return f"the check of GStreamer fails: {failure_text(error)}"
    return reason
