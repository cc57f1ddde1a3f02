"""ONNX Runtime's execution providers for NVIDIA GPUs, and the options that each of them gets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from finedge.bundle import Bundle
from finedge.errors import UsageError, nearest
from finedge.runtime.batch_profile import Profile
from finedge.runtime.ort.session import ProviderOptions

# An environment variable for tests and experts; without it the first that can run is taken.
OVERRIDE = "FINEDGE_ORT_PROVIDER"
# NVIDIA's own switch: 0 forbids TF32 to every library of the process. The TensorRT providers have
# no option for it.
TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: ONNX Runtime's name.
        short: the name in `FINEDGE_ORT_PROVIDER` and in folder names.
        install: what installs it.
        module: the Python package of a plugin; "" for a provider that is compiled in.
        prefix: how the names of its options start, where it builds engines; "" where it does not.
    """

    name: str
    short: str
    install: str
    module: str = ""
    prefix: str = ""

    @property
    def builds_engines(self) -> bool:
        """Whether the first opening of a file compiles it, which can take minutes."""
        return bool(self.prefix)

    @property
    def usual_variants(self) -> tuple[str, ...]:
        """The variants that it accelerates: CUDA's convolutions have no INT8."""
        return ("fp32", "fp16", "int8") if self.builds_engines else ("fp32", "fp16")

    def precision(self, variant: str) -> str:
        """Return what really computes: TF32 rounds products of float32 to 10 bits of mantissa."""
        rounds = self.builds_engines and os.environ.get(TF32_SWITCH) != "0"
        return "fp32 (TF32)" if variant == "fp32" and rounds else variant


GPU_PACKAGE = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
PLUGIN_PACKAGE = "pip install 'finedge[ort-rtx]'"
# In the order in which they are taken: those that compile the graph first.
PROVIDERS = (
    Provider(
        "NvTensorRTRTXExecutionProvider",
        "rtx",
        PLUGIN_PACKAGE,
        module="onnxruntime_ep_nv_tensorrt_rtx",
        prefix="nv",
    ),
    Provider("TensorrtExecutionProvider", "tensorrt", GPU_PACKAGE, prefix="trt"),
    Provider(CUDA, "cuda", GPU_PACKAGE),
)


def candidates() -> tuple[Provider, ...]:
    """Return the providers in the order in which they are tried.

    Raises:
        UsageError: `FINEDGE_ORT_PROVIDER` names none of them.
    """
    setting = os.environ.get(OVERRIDE)
    if not setting:
        return PROVIDERS
    names = {provider.short: provider for provider in PROVIDERS}
    if setting not in names:
        raise UsageError(f"{OVERRIDE} is '{setting}'", expected=nearest(setting, names))
    return (names[setting],)


def provider_options(
    provider: Provider, bundle: Bundle, *, variant: str, cache: Path | None
) -> list[ProviderOptions]:
    """Return the provider with its options, and CUDA's beside TensorRT's for what that leaves.

    `cache` is the folder for engines; None keeps none.
    """
    cuda = (CUDA, {"device_id": "0", "use_tf32": "0"})
    if not provider.builds_engines:
        return [cuda if provider.name == CUDA else (provider.name, {})]
    shapes = profile_options(provider.prefix, bundle, profile=Profile())
    if provider.module:
        folder = {} if cache is None else {"nv_runtime_cache_path": str(cache)}
        return [(provider.name, {**shapes, **folder})]
    precision = {
        "trt_fp16_enable": str(int(variant == "fp16")),
        "trt_int8_enable": str(int(variant == "int8")),
    }
    options = {"device_id": "0", **shapes, **precision, **_engine_cache(cache)}
    return [(provider.name, options), cuda]


def profile_options(prefix: str, bundle: Bundle, *, profile: Profile) -> dict[str, str]:
    """Return the batch sizes that an engine serves, e.g. `frames:8x224x224x3` for the largest."""
    size = bundle.spec.input
    row = f"{size.height}x{size.width}x3"
    sizes = {"min": profile.min, "opt": profile.opt, "max": profile.max}
    return {
        f"{prefix}_profile_{name}_shapes": f"{size.name}:{number}x{row}"
        for name, number in sizes.items()
    }


def _engine_cache(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
