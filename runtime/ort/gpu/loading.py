"""Loads an execution provider into this process and puts it into a session's settings."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finedge.errors import SystemProblem
from finedge.runtime.ort.gpu.providers import Provider
from finedge.runtime.ort.session import ProviderOptions

if TYPE_CHECKING:
    import onnxruntime


def preload() -> None:
    """Load CUDA's and cuDNN's libraries from NVIDIA's Python packages, where they are installed.

    ONNX Runtime 1.21 and later can. It prints what it does not find.
    """
    import onnxruntime

    load = getattr(onnxruntime, "preload_dlls", None)
    if load is not None:
        with contextlib.redirect_stdout(sys.stderr):
            load()


def apply(
    provider: Provider, settings: onnxruntime.SessionOptions, options: Sequence[ProviderOptions]
) -> list[ProviderOptions] | None:
    """Load the provider; return what `InferenceSession` gets as `providers`.

    A plugin is put into `settings` instead, and None is returned.

    Raises:
        SystemProblem: the plugin does not load, or offers no GPU.
    """
    if not provider.module:
        preload()
        return list(options)
    devices = plugin_devices(provider)
    settings.add_provider_for_devices(devices[:1], options[0][1])
    return None


def plugin_devices(provider: Provider) -> list[Any]:
    """Register a plugin once; return the GPUs that it offers (`OrtEpDevice`), at least one.

    Raises:
        SystemProblem: it does not load, or offers none.
    """
    import onnxruntime

    try:
        _register(provider.name, provider.module)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise SystemProblem(f"{provider.module} does not load: {error}") from error
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider.name]
    if not devices:
        raise SystemProblem(
            "its library loads and offers no GPU: it takes compute capability 8.6, 8.9, "
            "or 12.0 and newer, and a driver for its CUDA"
        )
    return devices


@functools.cache
def _register(name: str, module: str) -> None:
    import onnxruntime

    package = importlib.import_module(module)
    library = Path(package.get_library_path())
    _load_runtime_of(library.parent)
    onnxruntime.register_execution_provider_library(name, str(library))


def _load_runtime_of(folder: Path) -> None:
    """Load the CUDA runtime that lies beside a plugin.

    Version 0.5.0 of NVIDIA's package brings libcudart.so.13.4.36 and loads its other libraries
    itself, but not this one; nor is there a link of the name that the plugin asks for.
    """
    import ctypes

    for library in sorted(folder.glob("libcudart.so.*")):
        # The plugin, which is loaded next, reports a better error.
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
