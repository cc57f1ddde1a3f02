"""How an engine computes cross-layer attention: from standard ops, or by our plugin."""

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

AttentionMode = Literal["decomposed", "plugin"]

# Larger heads TensorRT computes as two products and a softmax.
MAX_FUSED_HEAD = 256


@dataclass(frozen=True)
class AttentionDecision:
    """A mode and the reason for it; both are recorded with the engine."""

    mode: AttentionMode
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {"mode": self.mode, "why": self.reason}


def attention_decisions(
    nodes: Sequence[AttentionNode], options: BuildOptions, *, library: TrtLibrary, timed: bool
) -> tuple[AttentionDecision, ...]:
    """Return how attention is to be computed.

    That is one decision, or one for each mode where the faster is to be found by timing (`timed`).

    Raises:
        BackendMissing: the plugin was chosen and cannot be used here.
    """
    if options.attention == "plugin":
        _require_plugin(nodes, library)
        return (AttentionDecision("plugin", "asked for"),)
    if options.attention == "decomposed":
        return (AttentionDecision("decomposed", "asked for"),)
    if not nodes:
        return (AttentionDecision("decomposed", "the graph has no cross-layer attention"),)
    if not options.plugin_fits:
        reason = f"the plugin's kernel takes float16, precision {options.precision} has none"
        return (AttentionDecision("decomposed", reason),)
    return _both(nodes, library) if timed else (_by_rule(nodes, options, library),)


def faster(
    engines: Mapping[AttentionMode, bytes], milliseconds: Callable[[bytes], float]
) -> tuple[AttentionMode, dict[str, float]]:
    """Return the mode of the fastest engine, and the milliseconds of each.

    `milliseconds` runs an engine's bytes and returns its milliseconds per batch.
    """
    times = {mode: milliseconds(data) for mode, data in engines.items()}
    fastest = min(times, key=lambda mode: times[mode])
    return fastest, {mode: round(time, 4) for mode, time in times.items()}


def plugin_why_not(nodes: Sequence[AttentionNode], library: TrtLibrary) -> str | None:
    """Return why no engine with the plugin can be built here, or None."""
    for node in nodes:
        try:
            kernel_for(d=node.d, dv=node.dv, shared=node.shared)
        except UsageError as error:  # noqa: PERF203 - a handful of nodes
            return f"node {node.name}: {error.what}"
    if library.is_rtx and not has_link():
        return (
            f"TensorRT for RTX ends the process where the library {LIBRARY} is not found "
            f"by that name: {how_to_link()}"
        )
    return None


def _require_plugin(nodes: Sequence[AttentionNode], library: TrtLibrary) -> None:
    reason = plugin_why_not(nodes, library)
    if reason:
        raise BackendMissing(
            f"--attention plugin cannot be used with {library.name} here: {reason}",
            fix="or use --attention decomposed",
        )


def _both(nodes: Sequence[AttentionNode], library: TrtLibrary) -> tuple[AttentionDecision, ...]:
    reason = plugin_why_not(nodes, library)
    if reason:
        log.info("attention stays decomposed, the plugin is not tried: %s", reason)
        return (AttentionDecision("decomposed", f"the plugin cannot be used: {reason}"),)
    return AttentionDecision("decomposed", "timed"), AttentionDecision("plugin", "timed")


def _by_rule(
    nodes: Sequence[AttentionNode], options: BuildOptions, library: TrtLibrary
) -> AttentionDecision:
    unfused = _not_fused(nodes, options, library)
    if not unfused:
        default = "the default of this backend without a GPU to time on"
        reason = "TensorRT fuses it" if options.precision == "fp16" else default
        return AttentionDecision("decomposed", reason)
    obstacle = plugin_why_not(nodes, library)
    if obstacle:
        log.warning("attention stays decomposed although %s: %s", unfused, obstacle)
        reason = f"{unfused}, but the plugin cannot be used: {obstacle}"
        return AttentionDecision("decomposed", reason)
    return AttentionDecision("plugin", unfused)


def _not_fused(nodes: Sequence[AttentionNode], options: BuildOptions, library: TrtLibrary) -> str:
    """Return why TensorRT would leave some attention unfused, or ''.

    With TensorRT for RTX only the largest heads are worth the plugin's conditions.
    """
    wide = next((node for node in nodes if max(node.d, node.dv) > MAX_FUSED_HEAD), None)
    if wide:
        size = max(wide.d, wide.dv)
        return f"TensorRT does not fuse heads of {size} > {MAX_FUSED_HEAD} ({wide.name})"
    if library.is_rtx:
        return ""
    if options.precision == "int8":
        return "TensorRT does not fuse attention between INT8 layers"
    uneven = next((node for node in nodes if node.d != node.dv), None)
    if uneven is None:
        return ""
    sizes = f"heads of {uneven.d} with values of {uneven.dv}"
    return f"TensorRT does not fuse {sizes} ({uneven.name})"
