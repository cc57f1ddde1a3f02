"""Who computes cross-layer attention in an engine: TensorRT from standard ops, or our plugin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from finedge.errors import BackendMissing, UsageError
from finedge.graph.attention import AttentionNode
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.plugin.launch import kernel_for
from finedge.runtime.trt.plugin.link import LIBRARY, has_link, how_to_link

log = logging.getLogger(__name__)

Mode = Literal["decomposed", "plugin"]

# Larger heads TensorRT computes as two products and a softmax.
LARGEST_FUSED_HEAD = 256


@dataclass(frozen=True)
class Choice:
    """A mode and the reason for it; both are recorded with the engine."""

    mode: Mode
    why: str


def choices(
    found: Sequence[AttentionNode], options: BuildOptions, *, library: TrtLibrary, timed: bool
) -> tuple[Choice, ...]:
    """Return how attention is to be computed: one choice, or both modes where the faster is to be found by timing (`timed`).

    Raises:
        BackendMissing: the plugin was asked for and cannot be used here.
    """
    if options.attention == "plugin":
        _require_plugin(found, library)
        return (Choice("plugin", "asked for"),)
    if options.attention == "decomposed" or not found:
        return (
            Choice(
                "decomposed",
                "asked for"
                if options.attention == "decomposed"
                else "the graph has no cross-layer attention",
            ),
        )
    if not options.plugin_fits:
        return (
            Choice(
                "decomposed",
                f"the plugin's kernel takes float16, precision {options.precision} has none",
            ),
        )
    return _timed(found, library) if timed else (_by_rule(found, options, library),)


def faster(
    engines: Mapping[Mode, bytes], time: Callable[[bytes], float]
) -> tuple[Mode, dict[str, float]]:
    """Return the mode of the fastest engine and the milliseconds of each; `time` runs an engine and returns its milliseconds a batch."""
    took: dict[Mode, float] = {mode: time(data) for mode, data in engines.items()}
    return min(took, key=lambda mode: took[mode]), {mode: round(ms, 4) for mode, ms in took.items()}


def plugin_why_not(found: Sequence[AttentionNode], library: TrtLibrary) -> str | None:
    """Return why no engine with the plugin can be built here, or None."""
    for node in found:
        try:
            kernel_for(d=node.d, dv=node.dv, shared=node.shared)
        except UsageError as error:  # noqa: PERF203 - a handful of nodes
            return f"node {node.name}: {error.what}"
    if library.is_rtx and not has_link():
        return f"{LIBRARY} is not found by that name, without which TensorRT for RTX ends the process: {how_to_link()}"
    return None


def _require_plugin(found: Sequence[AttentionNode], library: TrtLibrary) -> None:
    why = plugin_why_not(found, library)
    if why:
        raise BackendMissing(
            f"--attention plugin cannot be used with {library.name} here: {why}",
            fix="or use --attention decomposed",
        )


def _timed(found: Sequence[AttentionNode], library: TrtLibrary) -> tuple[Choice, ...]:
    why = plugin_why_not(found, library)
    if why:
        log.info("attention stays decomposed, the plugin is not tried: %s", why)
        return (Choice("decomposed", f"the plugin cannot be used: {why}"),)
    return Choice("decomposed", "timed"), Choice("plugin", "timed")


def _by_rule(found: Sequence[AttentionNode], options: BuildOptions, library: TrtLibrary) -> Choice:
    reason = _not_fused(found, options, library)
    if not reason:
        return Choice(
            "decomposed",
            "TensorRT fuses it"
            if options.precision == "fp16"
            else "the default of this backend without a GPU to time on",
        )
    why = plugin_why_not(found, library)
    if why:
        log.warning("attention stays decomposed although %s: %s", reason, why)
        return Choice("decomposed", f"{reason}, but the plugin cannot be used: {why}")
    return Choice("plugin", reason)


def _not_fused(found: Sequence[AttentionNode], options: BuildOptions, library: TrtLibrary) -> str:
    """Return why TensorRT would leave some attention unfused, or ''. With RTX only the largest heads are worth its plugin's conditions."""
    wide = next((a for a in found if max(a.d, a.dv) > LARGEST_FUSED_HEAD), None)
    if wide:
        return f"TensorRT does not fuse heads of {max(wide.d, wide.dv)} > {LARGEST_FUSED_HEAD} ({wide.name})"
    if library.is_rtx:
        return ""
    if options.precision == "int8":
        return "TensorRT does not fuse attention between INT8 layers"
    uneven = next((a for a in found if a.d != a.dv), None)
    return (
        f"TensorRT does not fuse heads of {uneven.d} with values of {uneven.dv} ({uneven.name})"
        if uneven
        else ""
    )
