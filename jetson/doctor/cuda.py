"""The versions of CUDA on a machine: several packages bring one, the driver supports another."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from finedge.document import parse_json
from finedge.errors import SystemProblem
from finedge.runtime.cuda.binding import Cuda, binding
from finedge.runtime.cuda.libcuda import driver_version, version_text
from finedge.runtime.machine.sysfs import text
from finedge.schema import Misfit, Text, decode


class _Version(TypedDict):
    version: Text


class _Toolkit(TypedDict):
    cuda: _Version


def cuda_versions(root: Path = Path("/")) -> dict[str, str | None]:
    """Return the versions of CUDA on this machine by their source, None where it has none.

    `toolkit` is below /usr/local, `torch` is what PyTorch was built with (it is not imported),
    `package` is NVIDIA's runtime from the package index. `driver` is the newest that the driver
    supports, `binding` what Python's binding contains. Engines need driver and binding only.
    """
    driver = driver_version()
    return {
        "toolkit": cuda_toolkit(root),
        "torch": _torch_cuda(),
        "package": _runtime_package(),
        "driver": version_text(driver) if driver else None,
        "binding": _binding_cuda(),
    }


def cuda_toolkit(root: Path = Path("/")) -> str | None:
    """Return the version of the CUDA toolkit, or of its runtime alone, below /usr/local."""
    folder = root / "usr/local"
    toolkits = [folder / "cuda", *sorted(folder.glob("cuda-*"), reverse=True)]
    return next(filter(None, map(_toolkit_version, toolkits)), None)


def _toolkit_version(folder: Path) -> str | None:
    path = folder / "version.json"
    try:
        document = parse_json(text(path), name=str(path), error=SystemProblem, fix="")
        return decode(_Toolkit, document)["cuda"]["version"]
    except (SystemProblem, Misfit):
        pass  # images with the runtime alone have no such file
    libraries = [
        *folder.glob("lib64/libcudart.so.*.*"),
        *folder.glob("targets/*/lib/libcudart.so.*.*"),
    ]
    return libraries[0].name.removeprefix("libcudart.so.") if libraries else None


def _torch_cuda() -> str | None:
    """Return the line `cuda: Optional[str] = '13.0'` of torch/version.py."""
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("torch")
        if spec is not None and spec.origin is not None:
            lines = text(Path(spec.origin).with_name("version.py"))
            match = re.search(r"""^cuda\b.*=\s*["']([\d.]+)["']""", lines, re.MULTILINE)
            return match[1] if match else None
    return None


def _runtime_package() -> str | None:
    """Return the version of nvidia-cuda-runtime; before CUDA 13 its name ends with the major."""
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11"):
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def _binding_cuda() -> str | None:
    api = binding()
    try:
        result = None if api is None else Cuda(api).try_call("cudaRuntimeGetVersion")
        return version_text(result.values[0]) if result and result.values else None
    except Exception:  # `why_no_gpu` has the reason
        return None
