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

# What a Jetson's pipelines are made of, and the plugin file that each is in (package nvidia-l4t-gstreamer).
NVIDIA_ELEMENTS = {
    "nvarguscamerasrc": "nvarguscamerasrc",
    "nvvidconv": "nvvidconv",
    "nvv4l2decoder": "nvvideo4linux2",
}
CSI = "vi-output"  # how NVIDIA's driver begins the name of a sensor on the CSI connector


def opencv() -> dict[str, Any]:
    """Return the version of OpenCV and whether it was built with FFmpeg (video files), GStreamer (CSI, RTSP) and V4L2 (cameras)."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        return {
            "version": None,
            "error": str(error),
            "fix": "pip install finedge (on a Jetson cv2 comes with JetPack: venv --system-site-packages)",
        }
    except ImportError as error:
        return {"version": None, "error": str(error), "fix": missing_library(error).fix}
    build = cv2.getBuildInformation()
    return {
        "version": cv2.__version__,
        **{
            name: built_with(build, word)
            for name, word in (
                ("ffmpeg", "FFMPEG"),
                ("gstreamer", "GStreamer"),
                ("v4l2", "v4l/v4l2"),
            )
        },
    }


def built_with(build: str, feature: str) -> bool:
    """Tell by the text of `cv2.getBuildInformation()` whether a feature is in."""
    return re.search(rf"^\s*{re.escape(feature)}:\s+YES", build, re.MULTILINE) is not None


def gstreamer(root: Path = Path("/")) -> dict[str, Any]:
    """Return why no pipeline can be read (None: one can), whether gst-launch-1.0 and python3-gi are there, and NVIDIA's elements."""
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
    """Return the V4L2 devices: path, the driver's name for it, usb or csi, and whether this user may read it."""
    devices = sorted(
        (p for p in (root / "dev").glob("video[0-9]*")), key=lambda p: (len(p.name), p.name)
    )
    names = {p: text(root / "sys/class/video4linux" / p.name / "name") for p in devices}
    return [
        {
            "device": f"/dev/{p.name}",
            "name": n or UNKNOWN,
            "kind": "csi" if n.startswith(CSI) else "v4l2",
            "readable": os.access(p, os.R_OK),
        }
        for p, n in names.items()
    ]


def _why_no_pipeline() -> str | None:
    try:
        why: str | None = importlib.import_module("finedge.runtime.sources.gstreamer").why_not()
    except ImportError as error:
        return str(error)
    return why
