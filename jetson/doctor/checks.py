"""Problems in the facts of a machine, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finedge.runtime.machine.sysfs import UNKNOWN

MIN_FREE_MIB = 1024  # of memory and of disk: an engine build or an export needs about this much
SMALL_MIB = 8192  # a Jetson with no more memory than this needs swap to build engines
INT8_FLAGS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
TOO_OLD = ("4", "5", "6.0", "6.0 (preview)")  # their TensorRT is 8
ORT_GPU = "onnxruntime-gpu"
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", ORT_GPU)
VENV = "make the environment again: /usr/bin/python3 -m venv --system-site-packages .venv"
SWAP = (
    "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && "
    "sudo mkswap /swapfile && sudo swapon /swapfile"
)
ARGUS = "sudo systemctl restart nvargus-daemon; in a container mount /tmp/argus_socket"


@dataclass(frozen=True)
class Problem:
    """Something that makes finedge fail, slow or unreliable on this machine.

    Attributes:
        what: what is wrong.
        fix: what to do about it, mostly a command.
    """

    what: str
    fix: str


def find_problems(facts: dict[str, Any]) -> list[Problem]:
    """Return the problems in the facts of `examine`."""
    return [
        *_picture_problems(facts),
        *_camera_problems(facts),
        *_memory_problems(facts),
        *_cpu_problems(facts),
        *_speed_problems(facts),
        *_gpu_problems(facts),
        *_jetson_problems(facts),
    ]


def _picture_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    opencv, gstreamer, on_jetson = facts["opencv"], facts["gstreamer"], facts["jetson"] is not None
    missing = [name for name, is_present in gstreamer["elements"].items() if not is_present]
    if opencv["version"] is None:
        yield Problem(f"cv2 cannot be imported: {opencv.get('error')}", str(opencv.get("fix")))
    if opencv.get("ffmpeg") is False:
        yield Problem(
            "this OpenCV has no FFmpeg: --save cannot write a video",
            "pip install opencv-python (not on a Jetson), or apt-get install python3-opencv",
        )
    pyav = facts["decoders"]["pyav"]
    if pyav["version"] is None:
        what = f"video files and network streams cannot be read: {pyav['error']}"
        yield Problem(what, pyav["fix"])
    # The wheel of the package index has no GStreamer. Where Python finds it first, it hides the cv2
    # of JetPack.
    if on_jetson and gstreamer["why_not"] is not None:
        yield Problem(
            f"no GStreamer for Python: {gstreamer['why_not']}",
            f"sudo apt-get install python3-gi; pip uninstall opencv-python; {VENV}",
        )
    if on_jetson and missing:
        yield Problem(
            f"GStreamer lacks {', '.join(missing)}", "sudo apt-get install nvidia-l4t-gstreamer"
        )


def _camera_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    cameras = facts["cameras"]
    unreadable = [camera["device"] for camera in cameras if not camera["readable"]]
    if unreadable:
        yield Problem(
            f"this user may not read these cameras: {', '.join(unreadable)}",
            "sudo usermod -aG video $USER, then log in again",
        )
    if any(camera["kind"] == "csi" for camera in cameras) and not facts["gstreamer"]["argus"]:
        yield Problem("there is a CSI camera, but the daemon that reads it does not run", ARGUS)


def _memory_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    memory, disk = facts["environment"]["memory_mib"], facts["disk_free_mib"]
    if isinstance(memory, dict):
        free, total = memory["available"], memory["total"]
        if free < MIN_FREE_MIB:
            yield Problem(f"{free} MiB of memory available", "close other programs, or add swap")
        if facts["jetson"] is not None and total <= SMALL_MIB and not facts["swap_mib"]:
            yield Problem(
                f"{total} MiB of memory and no swap: the system may kill an engine build", SWAP
            )
    if disk < MIN_FREE_MIB:
        yield Problem(f"{disk} MiB free on disk", f"free at least {MIN_FREE_MIB} MiB")


def _cpu_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    flags, why_not = set(facts["environment"]["cpu_flags"]), facts["backends"]["onnxruntime"]
    if flags and not flags & INT8_FLAGS:
        yield Problem(
            "this CPU has no INT8 dot product: int8 may not be faster here",
            "measure it: finedge benchmark BUNDLE",
        )
    if why_not is not None:
        # A broken package has its own fix in the reason.
        what, _, packages = why_not.partition(": pip install ")
        fix = f"pip install {packages or 'finedge'}"
        yield Problem(f"backend onnxruntime cannot run: {what}", fix)


def _speed_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    governor, telemetry = facts["environment"]["governor"], facts["telemetry"]
    # On a Jetson, jetson_clocks fixes the clocks and leaves the governor as it is.
    if governor not in ("performance", UNKNOWN) and facts["jetson"] is None:
        yield Problem(
            f"the CPU governor is {governor}: clocks vary during a measurement",
            "sudo cpupower frequency-set -g performance",
        )
    yield from _power_mode_problems(telemetry["power_mode"], facts["power_modes"])
    if telemetry["clocks_locked"] is False:
        yield Problem("clocks vary with the load", "before a measurement: sudo jetson_clocks")
    if telemetry["throttled"] is True:
        yield Problem(
            f"the machine slows itself down: {', '.join(telemetry['throttled_by'])}",
            "cool it; for over-current and under-voltage use a stronger supply",
        )


def _power_mode_problems(mode: str | None, modes: dict[Any, str]) -> Iterator[Problem]:
    fastest = [(number, name) for number, name in modes.items() if name.startswith("MAXN")]
    if fastest and mode is not None and not mode.startswith("MAXN"):
        number, name = fastest[0]
        yield Problem(
            f"the power mode is {mode}: {name} is faster and takes more power",
            f"sudo nvpmodel -m {number}",
        )


def _gpu_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    gpu, image = facts["gpu"], facts["plugin_image"]
    signs = (facts["nvidia_driver"], facts["jetson"], facts["cuda_versions"]["driver"])
    has_driver = any(sign is not None for sign in signs)
    if gpu is None:
        # ONNX Runtime needs no CUDA binding for Python.
        if has_driver and facts["backends"].get(ORT_GPU, "missing") is not None:
            yield Problem("the GPU cannot be used", str(facts["why_no_gpu"]))
        return
    backends = facts["backends"].items()
    reasons = {name: why_not for name, why_not in backends if name in GPU_BACKENDS}
    if reasons and all(reasons.values()):
        fixes = (f"{name}: {why_not}" for name, why_not in reasons.items())
        yield Problem("no backend uses the GPU", "; or ".join(fixes))
    if image["file"] is None:
        yield Problem(
            "no image of the attention kernel fits this GPU: engines are built without the plugin",
            str(image["why_not"]),
        )


def _jetson_problems(facts: dict[str, Any]) -> Iterator[Problem]:
    board, tensorrt = facts["jetson"], facts["tensorrt"]
    if board is None:
        return
    if board["jetpack"] in TOO_OLD:
        yield Problem(
            f"JetPack {board['jetpack']} is too old: its TensorRT is 8",
            "flash JetPack 6.1 or newer",
        )
    if tensorrt["tensorrt"]["version"] is not None:
        return
    if system := tensorrt["system"]:
        yield Problem(
            f"JetPack's TensorRT {system['version']} is not visible to this Python",
            f"{VENV} (JetPack's is of {system['python']})",
        )
    else:
        yield Problem(
            "TensorRT is not installed",
            "sudo apt-get install nvidia-jetpack (never by pip on a Jetson)",
        )
