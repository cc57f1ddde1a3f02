"""The GPU and what runs on it: driver, CUDA, TensorRT, the attention kernel's image."""

from __future__ import annotations

import importlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from finedge.document import parsed
from finedge.errors import SystemProblem
from finedge.runtime.machine.sysfs import text
from finedge.runtime.trt import library
from finedge.runtime.trt.cuda import gpu, why_no_gpu
from finedge.runtime.trt.plugin.image import image_for
from finedge.schema import Misfit, Text, decode


class _Version(TypedDict):
    version: Text


class _Toolkit(TypedDict):
    cuda: _Version


def graphics() -> tuple[dict[str, Any] | None, str | None]:
    """Return the GPU that CUDA would use, and else why there is none."""
    try:
        found = gpu()
    except SystemProblem as error:
        return None, str(error)
    return (None, why_no_gpu()) if found is None else (asdict(found), None)


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """Return the version line of the NVIDIA kernel driver, or None where none is loaded."""
    lines = text(root / "proc/driver/nvidia/version").splitlines()
    return lines[0].removeprefix("NVRM version:").strip() if lines else None


def cuda_toolkit(root: Path = Path("/")) -> str | None:
    """Return the version of the CUDA toolkit in /usr/local/cuda, or None; engines run without one."""
    path = root / "usr/local/cuda/version.json"
    try:
        found = decode(_Toolkit, parsed(text(path), name=str(path), error=SystemProblem, fix=""))
    except (SystemProblem, Misfit):
        return None
    return found["cuda"]["version"]


def tensorrt(root: Path = Path("/")) -> dict[str, Any]:
    """Return version and `why_not` of each library that Python can import, and what JetPack installed for the system's Python.

    `system` has version and Python of the module in /usr/lib/python3*/dist-packages, or is None.
    """
    versions = {
        name: {"version": _version(name), "why_not": library.why_not(name)}
        for name in library.MODULES
    }
    return {**versions, "system": _system_module(root)}


def plugin_image(here: dict[str, Any] | None) -> dict[str, str | None]:
    """Return the file of the attention kernel that this GPU and driver load, or why there is none."""
    if here is None:
        return {"file": None, "why_not": "there is no GPU to load it on"}
    (major, minor), (cuda, point) = (here[k].split(".") for k in ("compute_capability", "driver"))
    try:
        image = image_for(10 * int(major) + int(minor), driver=1000 * int(cuda) + 10 * int(point))
    except SystemProblem as error:
        return {"file": None, "why_not": str(error)}
    return {"file": image.path.name, "why_not": None}


def _version(name: str) -> str | None:
    return (
        None
        if library.why_not(name)
        else str(importlib.import_module(library.MODULES[name][0]).__version__)
    )


def _system_module(root: Path) -> dict[str, str | None] | None:
    module = next(
        iter(sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt/__init__.py"))), None
    )
    if module is None:
        return None
    version = re.search(r"""^__version__\s*=\s*["']([\d.]+)""", text(module), re.MULTILINE)
    return {"version": version[1] if version else None, "python": module.parts[-4]}
