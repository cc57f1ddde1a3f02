"""TensorRT's and CUDA's own headers, where they are at hand."""

from __future__ import annotations

import os
import re
import site
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "FINEDGE_TENSORRT_HEADERS"
MISSING = (
    "TensorRT's headers are not here: install libnvinfer-headers-dev, set TENSORRT_ROOT, or list "
    f"folders with NvInferRuntime.h in {VARIABLE} (NVIDIA/TensorRT's include/ of a release)"
)
NO_CUDA = "CUDA's headers are not here: set CUDA_HOME, or install cuda-cudart-dev"
_NUMBER = r"define\s+(?:NV_TENSORRT|TRT)_{}(?:_ENTERPRISE)?\s+(\d+)"


@dataclass(frozen=True)
class Headers:
    """A folder with NvInferRuntime.h, and its version, e.g. "10.3.0"."""

    folder: Path
    version: str


def headers() -> list[Headers]:
    """Return every version that is here, the oldest first."""
    versions = {_version(folder): folder for folder in _folders()}
    numbers = {version: [int(n) for n in version.split(".")] for version in versions}
    return [Headers(versions[version], version) for version in sorted(versions, key=numbers.get)]


def cuda_include() -> Path | None:
    """Return the folder of CUDA's runtime header and of what it includes, or None."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    folders += Path("/usr/local").glob("cuda-*/include")
    for packages in map(Path, site.getsitepackages()):  # wheels bring them too
        folders += packages.glob("nvidia/*/include")
        folders += packages.glob("triton/backends/nvidia/include")
    needed = ("cuda_runtime_api.h", "crt/host_defines.h")
    return next((f for f in folders if all((f / name).is_file() for name in needed)), None)


def _folders() -> list[Path]:
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    roots = [Path(part) for part in (*named, os.environ.get("TENSORRT_ROOT", "")) if part]
    folders = [folder for root in roots for folder in (root, root / "include")]
    folders += [Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")]
    return [folder for folder in folders if (folder / "NvInferRuntime.h").is_file()]


def _version(folder: Path) -> str:
    text = (folder / "NvInferVersion.h").read_text()
    numbers = [re.search(_NUMBER.format(part), text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number[1] for number in numbers if number)
