"""The facts of a machine as plain data.

Nothing is changed and no camera is opened. A fact that cannot be read is None or "unknown".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from finedge.errors import SystemProblem
from finedge.jetson.doctor.board import jetson
from finedge.jetson.doctor.cuda import cuda_versions
from finedge.jetson.doctor.decoders import hardware, opencv_backends, pyav, used
from finedge.jetson.doctor.gpu import graphics, nvidia_driver, plugin_image, tensorrt
from finedge.jetson.doctor.pictures import cameras, gstreamer, opencv
from finedge.runtime.backend import backend_names, why_not
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.machine.sysfs import text
from finedge.runtime.ort.gpu.probe import why_not_each
from finedge.runtime.telemetry import read_telemetry
from finedge.runtime.telemetry.clocks import power_modes
from finedge.runtime.telemetry.environment import environment


def examine(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts of this machine.

    System files are read under `root`. Python packages, GPU and disk are those of this process.
    """
    gpu, why_no_gpu = graphics()
    cuda = cuda_versions(root)
    return {
        "environment": environment(root),
        "swap_mib": swap_mib(root),
        "disk_free_mib": disk_free_mib(),
        "jetson": jetson(root),
        "power_modes": power_modes(root),
        "telemetry": read_telemetry(root).to_json(),
        "nvidia_driver": nvidia_driver(root),
        "cuda": next(filter(None, cuda.values()), None),
        "cuda_versions": cuda,
        "gpu": gpu,
        "why_no_gpu": why_no_gpu,
        "tensorrt": tensorrt(root),
        "plugin_image": plugin_image(gpu),
        "onnxruntime_providers": why_not_each(),
        "opencv": opencv(),
        "gstreamer": gstreamer(root),
        "decoders": {
            "pyav": pyav(),
            "opencv": opencv_backends(),
            "hardware": hardware(root),
            "used": used(),
        },
        "cameras": cameras(root),
        "backends": {name: why_not(name) for name in backend_names()},
    }


def swap_mib(root: Path = Path("/")) -> dict[str, int]:
    """Return the size of each swap device in MiB by its path.

    `/dev/zram0` is compressed memory.
    """
    lines = text(root / "proc/swaps").splitlines()[1:]
    return {
        fields[0]: int(fields[2]) >> 10
        for fields in (line.split() for line in lines)
        if len(fields) > 2
    }


def disk_free_mib() -> int:
    """Return the free space in MiB of the disk with engines and machine settings.

    They are in `$FINEDGE_CACHE`, or in the home folder. A user may have neither: then it is the
    root's.
    """
    try:
        folder = cache_folder()
    except SystemProblem:
        folder = Path("/")
    # The folder may not exist, or another user's folder may hide it.
    existing = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return shutil.disk_usage(existing).free >> 20
