"""The ways in which one engine can be built.

Each is an `EngineSpec`: options with nothing left open, the graph that TensorRT parses, and the key
of the result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from finedge.bundle import Bundle
from finedge.graph.onnx_file import read_model
from finedge.runtime.trt.build.attention import (
    AttentionDecision,
    attention_decisions,
    usable_decisions,
)
from finedge.runtime.trt.build.graph import attentions, prepare
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.memory import MemoryEstimate, estimate
from finedge.runtime.trt.build.options import LOCAL, BuildOptions, BuildTarget, Typing
from finedge.runtime.trt.library import TrtLibrary

if TYPE_CHECKING:
    import onnx


# Raise it when `compiler.py` configures the library differently: engines are then built again.
RECIPE = 1


@dataclass(frozen=True)
class EngineSpec:
    """One way to build an engine.

    Attributes:
        options: what the user chose; `options.attention` is decided (decomposed or plugin).
        attention: that decision and its reason.
        model: the graph that TensorRT parses.
        key: the key of the engine.
    """

    options: BuildOptions
    attention: AttentionDecision
    model: onnx.ModelProto
    key: EngineKey

    @cached_property
    def memory(self) -> MemoryEstimate:
        """The memory that the build will need."""
        return estimate(self.model, batch=self.options.profile.max)

    def key_with(self, typing: Typing) -> EngineKey:
        """Return the key of an engine that was built with another typing."""
        return replace(self.key, flags=_flags(replace(self.options, typing=typing)))


def engine_specs(
    bundle: Bundle,
    options: BuildOptions,
    *,
    library: TrtLibrary,
    target: BuildTarget,
    timed: bool = False,
) -> tuple[EngineSpec, ...]:
    """Return one way to build, or one per mode of attention where these can be timed.

    Args:
        bundle: the bundle; its file is read once.
        options: what the user chose.
        library: the library that builds.
        target: the GPU that the engine is for.
        timed: the caller can time engines; that needs an engine for this machine's GPU.

    Raises:
        BackendMissing: the plugin was chosen and cannot be used here.
        BundleError: the file is no model that this project exported.
    """
    timed = timed and target.local_gpu is not None and options.targets == LOCAL
    model = read_model(bundle.file(options.file))
    decisions = attention_decisions(attentions(model), options, library=library, timed=timed)
    return tuple(
        _spec(bundle, model, options, attention=decision, library=library, target=target)
        for decision in decisions
    )


def usable_specs(
    bundle: Bundle, options: BuildOptions, *, library: TrtLibrary, target: BuildTarget
) -> tuple[EngineSpec, ...]:
    """Return every way in which an engine that runs here may have been built.

    Arguments and errors are those of `engine_specs`.
    """
    model = read_model(bundle.file(options.file))
    return tuple(
        _spec(bundle, model, options, attention=decision, library=library, target=target)
        for decision in usable_decisions(attentions(model), options, library=library)
    )


def register_plugin(spec: EngineSpec, library: TrtLibrary) -> None:
    """Register the plugin if the graph of `spec` contains it."""
    if spec.attention.mode == "plugin":
        from finedge.runtime.trt.plugin.register import register

        register(library.trt)


def _spec(
    bundle: Bundle,
    model: onnx.ModelProto,
    options: BuildOptions,
    *,
    attention: AttentionDecision,
    library: TrtLibrary,
    target: BuildTarget,
) -> EngineSpec:
    options = replace(options, attention=attention.mode)
    graph = prepare(model, options, taps=bundle.taps)
    profile = options.profile
    key = EngineKey(
        onnx=hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
        plugin=_plugin_digest() if attention.mode == "plugin" else "",
        library=library.name,
        version=library.version,
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        precision=options.precision,
        profile=(profile.min, profile.opt, profile.max),
        flags=_flags(options),
    )
    return EngineSpec(options, attention, graph, key)


def _flags(options: BuildOptions) -> tuple[str, ...]:
    names = ("attention", "debug_taps", "typing", "workspace_mib")
    flags = [f"{name}={getattr(options, name)}" for name in names]
    return tuple(sorted([f"recipe={RECIPE}", *flags]))


def _plugin_digest() -> str:
    from finedge.runtime.trt.plugin.image import image_digest

    return image_digest()
