"""What in the facts will be in the way, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finedge.runtime.machine.sysfs import UNKNOWN

MIN_FREE_MIB = 1024  # of memory and of disk: an engine build or an export needs about this much
SMALL_MIB = 8192  # a Jetson with no more memory than this needs swap to build engines
INT8_FLAGS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
TOO_OLD = ("4", "5", "6.0", "6.0 (preview)")  # their TensorRT is 8
VENV = "make the environment anew: /usr/bin/python3 -m venv --system-site-packages .venv"
SWAP = "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile"

# Each check: whether it applies, what is wrong, what to do.
Check = tuple[bool, str, str]


@dataclass(frozen=True)
class Problem:
    """Something that will be in the way, and what to do about it."""

    what: str
    fix: str


def find_problems(facts: dict[str, Any]) -> list[Problem]:
    """Return what in the facts of `examine` will be in the way."""
    checks = (
        *_picture_checks(facts),
        *_camera_checks(facts),
        *_machine_checks(facts),
        *_speed_checks(facts),
        *_gpu_checks(facts),
        *_jetson_checks(facts),
    )
    return [Problem(what, fix) for applies, what, fix in checks if applies]


def _picture_checks(facts: dict[str, Any]) -> Iterator[Check]:
    vision, streams, on_jetson = facts["opencv"], facts["gstreamer"], facts["jetson"] is not None
    missing = [name for name, there in streams["elements"].items() if not there]
    yield (
        vision["version"] is None,
        f"cv2 cannot be imported: {vision.get('error')}",
        str(vision.get("fix")),
    )
    no_ffmpeg = vision.get("ffmpeg") is False
    yield (
        no_ffmpeg,
        "this OpenCV has no FFmpeg: video files cannot be read",
        "pip install opencv-python (not on a Jetson), or apt-get install python3-opencv",
    )
    # The wheel on the index has none, and found first it hides the cv2 of JetPack.
    no_streams = on_jetson and streams["why_not"] is not None
    yield (
        no_streams,
        f"no GStreamer for Python: {streams['why_not']}",
        f"sudo apt-get install python3-gi; pip uninstall opencv-python; {VENV}",
    )
    yield (
        on_jetson and bool(missing),
        f"GStreamer lacks {', '.join(missing)}",
        "sudo apt-get install nvidia-l4t-gstreamer",
    )


def _camera_checks(facts: dict[str, Any]) -> Iterator[Check]:
    unreadable = [c["device"] for c in facts["cameras"] if not c["readable"]]
    no_argus = any(c["kind"] == "csi" for c in facts["cameras"]) and not facts["gstreamer"]["argus"]
    yield (
        bool(unreadable),
        f"cameras that this user may not read: {', '.join(unreadable)}",
        "sudo usermod -aG video $USER, then log in again",
    )
    argus = "sudo systemctl restart nvargus-daemon; in a container mount /tmp/argus_socket"
    yield no_argus, "a CSI camera is there, but the daemon that reads it is not", argus


def _machine_checks(facts: dict[str, Any]) -> Iterator[Check]:
    machine, disk, runtime = (
        facts["environment"],
        facts["disk_free_mib"],
        facts["backends"]["onnxruntime"],
    )
    memory, flags = machine["memory_mib"], set(machine["cpu_flags"])
    known = memory if isinstance(memory, dict) else {}
    free, total = known.get("available", MIN_FREE_MIB), known.get("total", SMALL_MIB + 1)
    no_swap = facts["jetson"] is not None and total <= SMALL_MIB and not facts["swap_mib"]
    yield (
        bool(flags) and not flags & INT8_FLAGS,
        "this CPU has no INT8 dot product: int8 may not be faster here",
        "finedge benchmark BUNDLE tells",
    )
    yield (
        free < MIN_FREE_MIB,
        f"{free} MiB of memory available",
        "close other programs, or add swap",
    )
    yield no_swap, f"{total} MiB of memory and no swap: building an engine may be killed", SWAP
    yield disk < MIN_FREE_MIB, f"{disk} MiB free on disk", f"free at least {MIN_FREE_MIB} MiB"
    yield runtime is not None, f"backend onnxruntime cannot run: {runtime}", "pip install finedge"


def _speed_checks(facts: dict[str, Any]) -> Iterator[Check]:
    governor, now, on_jetson = (
        facts["environment"]["governor"],
        facts["telemetry"],
        facts["jetson"] is not None,
    )
    free = (
        governor not in ("performance", UNKNOWN) and not on_jetson
    )  # jetson_clocks fixes clocks and leaves the governor
    best = next(
        (
            (number, name)
            for number, name in facts["power_modes"].items()
            if name.startswith("MAXN")
        ),
        None,
    )
    slower = (
        best is not None
        and now["power_mode"] is not None
        and not now["power_mode"].startswith("MAXN")
    )
    yield (
        free,
        f"the CPU governor is {governor}: clocks vary while measuring",
        "sudo cpupower frequency-set -g performance",
    )
    if best is not None:
        yield (
            slower,
            f"the power mode is {now['power_mode']}: {best[1]} is faster, and takes more power",
            f"sudo nvpmodel -m {best[0]}",
        )
    yield (
        now["clocks_locked"] is False,
        "clocks vary with the load",
        "before measuring: sudo jetson_clocks",
    )
    slowed = ", ".join(now["throttled_by"])
    yield (
        now["throttled"] is True,
        f"the machine is being slowed: {slowed}",
        "cool it; for over-current and under-voltage use a stronger supply",
    )


def _gpu_checks(facts: dict[str, Any]) -> Iterator[Check]:
    gpu, image, backends = facts["gpu"], facts["plugin_image"], facts["backends"]
    expected = facts["nvidia_driver"] is not None or facts["jetson"] is not None
    engines = {name: why for name, why in backends.items() if name.startswith("tensorrt")}
    idle = gpu is not None and bool(engines) and all(engines.values())
    yield expected and gpu is None, "the GPU cannot be used", str(facts["why_no_gpu"])
    yield (
        idle,
        "no backend uses the GPU",
        "; or ".join(f"{name}: {why}" for name, why in engines.items()),
    )
    no_image = gpu is not None and image["file"] is None
    yield (
        no_image,
        "no image of the attention kernel fits this GPU: engines with it are built decomposed",
        str(image["why_not"]),
    )


def _jetson_checks(facts: dict[str, Any]) -> Iterator[Check]:
    board, library = facts["jetson"], facts["tensorrt"]
    if board is None:
        return
    seen, system = library["tensorrt"]["version"] is not None, library["system"]
    version, python = (system["version"], system["python"]) if system else (None, None)
    hidden = system is not None and not seen
    yield (
        board["jetpack"] in TOO_OLD,
        f"JetPack {board['jetpack']} is too old: its TensorRT is 8",
        "flash JetPack 6.1 or newer",
    )
    yield (
        hidden,
        f"JetPack's TensorRT {version} is not visible to this Python",
        f"{VENV} (JetPack's is of {python})",
    )
    yield (
        system is None and not seen,
        "TensorRT is not installed",
        "sudo apt-get install nvidia-jetpack (never by pip on a Jetson)",
    )
