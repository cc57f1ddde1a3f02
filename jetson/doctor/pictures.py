"""Where pictures come from: OpenCV, GStreamer and the cameras."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from finedge.commands import missing_library
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

    FFmpeg reads video files, GStreamer CSI and RTSP cameras, V4L2 USB cameras.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        return {"version": None, "error": str(error), "fix": INSTALL}
    except ImportError as error:
        return {"version": None, "error": str(error), "fix": missing_library(error).fix}
    build = cv2.getBuildInformation()
    features = {name: built_with(build, feature) for name, feature in FEATURES.items()}
    return {"version": cv2.__version__, **features}


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
        "gi": importlib.util.find_spec("gi") is not None,
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
        module = importlib.import_module("finedge.runtime.sources.gstreamer")
    except ImportError as error:
        return str(error)
    reason: str | None = module.why_not()
    return reason
