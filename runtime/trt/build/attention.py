"""How an engine computes cross-layer attention: from standard ops, or by our plugin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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

# TensorRT fuses attention up to this head, and computes larger ones as two products and a softmax.
# Up to it the plugin is not tried. Its first kernel lost to the unfused chain on 92 of 96 shapes,
# and won the other four by at most 19 % (one H200, benchmarks/gpu). Of the present one, which was
# not run on a GPU, the count bounds 44 to 69 % of Orin's tensor peak there.
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

    That is one decision, or one for each mode where the faster is to be found by timing. Without
    timing (`timed`) the plugin is never chosen unless it was asked for. Segments are never timed.

    Raises:
        BackendMissing: the plugin was chosen and cannot be used here.
    """
    if options.segment is not None and not (options.attention == "plugin" and nodes):
        return (AttentionDecision("decomposed", "segments are built so; they are not timed"),)
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
    head = max(max(node.d, node.dv) for node in nodes)
    if head <= MAX_FUSED_HEAD:
        reason = f"heads of {head} are left to TensorRT's own kernels (up to {MAX_FUSED_HEAD})"
        return (AttentionDecision("decomposed", reason),)
    if not timed:
        return (AttentionDecision("decomposed", "there is no GPU to time the plugin on"),)
    return _both(nodes, library)


def usable_decisions(
    nodes: Sequence[AttentionNode], options: BuildOptions, *, library: TrtLibrary
) -> tuple[AttentionDecision, ...]:
    """Return every mode that an engine which runs here may have been built with.

    With `auto` that includes a plugin that was asked for when the engine was built.
    """
    modes: tuple[AttentionMode, ...] = ("decomposed", "plugin")
    if options.attention != "auto":
        modes = (options.attention,)
    elif not nodes or not options.plugin_fits or plugin_why_not(nodes, library):
        modes = ("decomposed",)
    return tuple(AttentionDecision(mode, "stored") for mode in modes)


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
    obstacle = plugin_why_not(nodes, library)
    if obstacle:
        log.warning("attention stays decomposed, the plugin is not tried: %s", obstacle)
        return (AttentionDecision("decomposed", f"the plugin cannot be used: {obstacle}"),)
    return AttentionDecision("decomposed", "timed"), AttentionDecision("plugin", "timed")
