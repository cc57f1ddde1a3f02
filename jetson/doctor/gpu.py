"""The GPU and what runs on it: driver, CUDA, TensorRT, the attention kernel's image."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.cuda.gpu import gpu, why_no_gpu
from finedge.runtime.machine.packages import package_version
from finedge.runtime.machine.sysfs import text
from finedge.runtime.trt import library
from finedge.runtime.trt.plugin.image import image_for


def graphics() -> tuple[dict[str, Any] | None, str | None]:
    """Return the GPU that CUDA would use, or why there is none."""
    device = gpu()
    return (None, why_no_gpu()) if device is None else (asdict(device), None)


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """Return the version line of the NVIDIA kernel driver, or None where no driver is loaded."""
    lines = text(root / "proc/driver/nvidia/version").splitlines()
    return lines[0].removeprefix("NVRM version:").strip() if lines else None


def tensorrt(root: Path = Path("/")) -> dict[str, Any]:
    """Return version and `why_not` of each TensorRT library, and JetPack's own under `system`.

    `system` has the version and the Python of the module in /usr/lib/python3*/dist-packages, where
    JetPack installs it, or is None.
    """
    versions = {
        name: {"version": _version(name), "why_not": library.why_not(name)}
        for name in library.MODULES
    }
    return {**versions, "system": _system_module(root)}


def plugin_image(device: dict[str, Any] | None) -> dict[str, str | None]:
    """Return the image of the attention kernel that a GPU and its driver load, or `why_not`.

    `device` is the GPU of `graphics`.
    """
    if device is None:
        return {"file": None, "why_not": "there is no GPU to load it on"}
    major, minor = map(int, device["compute_capability"].split("."))
    cuda_major, cuda_minor = map(int, device["driver"].split("."))
    try:
        image = image_for(10 * major + minor, driver=1000 * cuda_major + 10 * cuda_minor)
    except SystemProblem as error:
        return {"file": None, "why_not": str(error)}
    return {"file": image.path.name, "why_not": None}


def _version(name: str) -> str | None:
    return None if library.why_not(name) else package_version(library.MODULES[name][0])


def _system_module(root: Path) -> dict[str, str | None] | None:
    modules = sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt/__init__.py"))
    if not modules:
        return None
    module = modules[0]
    match = re.search(r"""^__version__\s*=\s*["']([\d.]+)""", text(module), re.MULTILINE)
    return {"version": match[1] if match else None, "python": module.parts[-4]}
