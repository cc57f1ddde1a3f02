"""What decodes video here: the libraries, the hardware, and which of them finedge uses."""

from __future__ import annotations

import ctypes.util
import re
from pathlib import Path
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.machine.packages import failure_text, load_package, package_version
from finedge.runtime.machine.sysfs import text

# GStreamer's elements that decode H.264 in hardware: of a Jetson, NVDEC, VA-API (new and old),
# V4L2.
HARDWARE_ELEMENTS = ("nvv4l2decoder", "nvh264dec", "vah264dec", "vaapih264dec", "v4l2h264dec")
NVDEC = "nvcuvid"  # a library of NVIDIA's driver
# Codecs of a system on chip are V4L2 devices that no camera is behind; only their names tell.
CODEC_NAME = re.compile(r"codec|decod|\bdec\b|-dec|vdec|vpu", re.IGNORECASE)
SOFTWARE = "on the CPU"


def pyav() -> dict[str, Any]:
    """Return the version of PyAV, of its FFmpeg, and the hardware that it was built for."""
    try:
        version = package_version("av")
        library = load_package("av").ffmpeg_version_info
        devices = load_package("av.codec.hwaccel").hwdevices_available()
    except SystemProblem as error:
        return {"version": None, "error": error.what, "fix": error.fix or "pip install av"}
    except Exception as error:
        return {"version": None, "error": failure_text(error), "fix": "pip install av"}
    return {"version": version, "ffmpeg": str(library), "built_for": sorted(devices)}


def opencv_backends() -> list[str]:
    """Return the names of the libraries through which this OpenCV reads; empty without OpenCV."""
    try:
        registry = load_package("cv2").videoio_registry
        entries = {*registry.getStreamBackends(), *registry.getCameraBackends()}
        present = filter(registry.hasBackend, entries)  # others are plugins that may not be there
        return sorted(registry.getBackendName(entry) for entry in present)
    except Exception:
        return []


def hardware(root: Path = Path("/")) -> dict[str, Any]:
    """Return the decoders in hardware that this system shows; none is opened.

    `render_nodes` are the devices of VA-API, `nvdec` is the library of NVIDIA's decoder, `v4l2` the
    codec devices by their names, `gstreamer` its elements for H.264.
    """
    names = {path: text(path / "name") for path in _folders(root / "sys/class/video4linux")}
    return {
        "render_nodes": [f"/dev/dri/{path.name}" for path in _nodes(root / "dev/dri")],
        "nvdec": ctypes.util.find_library(NVDEC),
        "v4l2": {
            f"/dev/{path.name}": name for path, name in names.items() if CODEC_NAME.search(name)
        },
        "gstreamer": [name for name in HARDWARE_ELEMENTS if _has_element(name)],
    }


def used() -> dict[str, str]:
    """Return what decodes each kind of source, by the rule of `runtime.sources`."""
    rtsp = _rtsp_reader()
    jetson = _has_element("nvv4l2decoder")
    in_hardware = "in hardware (nvv4l2decoder)" if jetson else SOFTWARE
    csi = {"csi": "gstreamer (nvarguscamerasrc)"} if _has_element("nvarguscamerasrc") else {}
    return {
        "files, http": f"ffmpeg, {SOFTWARE}",
        "rtsp": f"gstreamer, {in_hardware}" if rtsp == "gstreamer" else f"{rtsp}, {SOFTWARE}",
        "v4l2": f"opencv, {SOFTWARE}",
        **csi,
    }


def _rtsp_reader() -> str:
    try:
        return str(load_package("finedge.runtime.sources.rtsp_source").reader_of())
    except Exception:
        return "ffmpeg"


def _has_element(name: str) -> bool:
    try:
        return bool(load_package("finedge.runtime.sources.gstreamer").has(name))
    except Exception:
        return False


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))


def _nodes(folder: Path) -> list[Path]:
    return sorted(folder.glob("renderD[0-9]*"))
