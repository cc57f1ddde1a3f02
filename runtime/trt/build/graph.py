"""The graph TensorRT is given.

We choose who computes attention, not the parser: whether a function or a plugin wins there depends on its version,
and its function importer binds by name alone (`tests/export/test_miscompiles.py` shows it on the real one).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.attention import AttentionNode, attention_nodes, is_attention
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.graph.tags import without_metadata
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.trt.build.options import BuildOptions

if TYPE_CHECKING:
    import onnx

    from finedge.bundle import Tap

log = logging.getLogger(__name__)


def prepare(path: Path, options: BuildOptions, *, taps: Sequence[Tap] = ()) -> onnx.ModelProto:
    """Return the model of the file as TensorRT is to parse it; `options.attention` must be decided (decomposed or plugin).

    Order: taps as outputs (with `debug_taps`); in plugin mode each attention as one node without a
    function; float16 islands (precision int8); in plugin mode what only the plugin needs, written
    into its nodes. Metadata is taken away: an engine's key depends on what is computed.

    Raises:
        BundleError: the file is no model of ours, or plugin mode finds no attention in it.
    """
    model = read_model(path)
    if options.debug_taps:
        model = _show_taps(model, taps)
    plugin = options.attention == "plugin"
    if plugin:
        model = _folded(model, path)
    model = without_metadata(model)
    if options.precision == "int8":
        from finedge.graph.float16_islands import float16_islands

        model = float16_islands(model)
    if not plugin:
        return model
    from finedge.runtime.trt.plugin.node_attributes import with_node_attributes

    return with_node_attributes(model)


def attentions(path: Path) -> tuple[AttentionNode, ...]:
    """Return the cross-layer attention nodes of a bundle's ONNX file, sizes by shape inference.

    Raises:
        BundleError: a size is not known.
    """
    import onnx

    nodes = attention_nodes(onnx.shape_inference.infer_shapes(read_model(path)))
    for node in nodes:
        if not (node.queries and node.keys and node.d and node.dv):
            raise BundleError(
                f"the size of an input of attention node {node.name} is not known",
                expected="[B, C, H, W] with known C, H and W",
                fix="export again",
            )
    return nodes


def _folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Make one node of each attention: the registered plugin becomes its only meaning."""
    folded = fold(model, CROSS_LAYER_ATTENTION)
    if not any(map(is_attention, folded.graph.node)):
        raise BundleError(
            f"{path} has no {CROSS_LAYER_ATTENTION.name} node for the plugin",
            fix="--attention decomposed",
        )
    return folded


def _show_taps(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    from finedge.graph.taps import tensors, with_taps

    present = [t for t in taps if t.tensor in tensors(model)]
    lost = [t.name for t in taps if t not in present]
    if lost:
        log.warning("these taps are not in the file and are left out: %s", ", ".join(lost))
    return with_taps(model, present)
