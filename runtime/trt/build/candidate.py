"""The ways one engine may be built: options with nothing left open, the graph TensorRT parses, and the key of the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from finedge.bundle import Bundle
from finedge.runtime.trt.build.attention import Choice, choices
from finedge.runtime.trt.build.graph import attentions, prepare
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.memory import Estimate, estimate
from finedge.runtime.trt.build.options import LOCAL, BuildOptions, Typing
from finedge.runtime.trt.build.target import Target
from finedge.runtime.trt.library import TrtLibrary

if TYPE_CHECKING:
    import onnx


# To be raised when `compiler.py` configures the library otherwise: engines of the old way are then built again.
RECIPE = 1


@dataclass(frozen=True)
class Candidate:
    """One way to build; `options.attention` and `key` hold the decided `choice`."""

    options: BuildOptions
    choice: Choice
    model: onnx.ModelProto
    key: EngineKey

    @cached_property
    def memory(self) -> Estimate:
        """What the build will need."""
        return estimate(self.model, batch=self.options.profile.max)

    def key_with(self, typing: Typing) -> EngineKey:
        """Return the key of an engine that took another typing than was asked for."""
        return replace(self.key, flags=_flags(replace(self.options, typing=typing)))


def candidates(
    bundle: Bundle, options: BuildOptions, *, library: TrtLibrary, where: Target
) -> tuple[Candidate, ...]:
    """Return one way, or both kinds of attention where they can be timed on this machine; errors are those of `choices` and `prepare`."""
    timed = where.here is not None and options.targets == LOCAL
    decided = choices(attentions(bundle.file(options.file)), options, library=library, timed=timed)
    return tuple(
        _candidate(bundle, replace(options, attention=c.mode), c, library=library, where=where)
        for c in decided
    )


def register_plugin(candidate: Candidate, library: TrtLibrary) -> None:
    """Register the plugin if the candidate is to be parsed with it."""
    if candidate.choice.mode == "plugin":
        from finedge.runtime.trt.plugin.cross_layer_attention import register

        register(library.trt)


def _candidate(
    bundle: Bundle, options: BuildOptions, choice: Choice, *, library: TrtLibrary, where: Target
) -> Candidate:
    model = prepare(bundle.file(options.file), options, taps=bundle.taps)
    profile = options.profile
    key = EngineKey(
        onnx=hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        plugin=_plugin_digest() if choice.mode == "plugin" else "",
        library=library.name,
        version=library.version,
        gpu=where.gpu,
        compute_capability=where.compute_capability,
        precision=options.precision,
        profile=(profile.min, profile.opt, profile.max),
        flags=_flags(options),
    )
    return Candidate(options, choice, model, key)


def _flags(options: BuildOptions) -> tuple[str, ...]:
    names = ("attention", "debug_taps", "typing", "workspace_mib")
    return tuple(
        sorted([f"recipe={RECIPE}", *(f"{name}={getattr(options, name)}" for name in names)])
    )


def _plugin_digest() -> str:
    from finedge.runtime.trt.plugin.image import image_digest

    return image_digest()
