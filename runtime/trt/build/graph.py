"""The graph that TensorRT parses.

This module decides how attention is computed, not the parser. Whether a function or a plugin wins
in the parser depends on its version. Its function importer binds by name alone:
`tests/export/test_miscompiles.py` shows this on the real importer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.attention import AttentionNode, attention_nodes, is_attention
from finedge.graph.folding import fold
from finedge.graph.tags import without_metadata
from finedge.ops import CROSS_LAYER_ATTENTION
from finedge.runtime.trt.build.options import BuildOptions

if TYPE_CHECKING:
    import onnx

    from finedge.bundle import Tap

log = logging.getLogger(__name__)


def prepare(
    model: onnx.ModelProto, options: BuildOptions, *, taps: Sequence[Tap] = ()
) -> onnx.ModelProto:
    """Return a copy of a bundle's model (`read_model`) as TensorRT is to parse it.

    Order: taps as outputs (with `debug_taps`); in plugin mode each attention as one node without a
    function; float16 islands (precision int8); in plugin mode the attributes that only the plugin
    needs. Metadata is removed, because an engine's key depends on the computation alone.

    Args:
        model: the model, functions inlined; it stays as it is.
        options: `attention` must be decided (decomposed or plugin).
        taps: the bundle's taps.

    Raises:
        BundleError: plugin mode finds no attention in the model.
    """
    if options.debug_taps:
        model = _show_taps(model, taps)
    plugin = options.attention == "plugin"
    if plugin:
        model = _folded(model)
    model = without_metadata(model)
    if options.precision == "int8":
        from finedge.graph.float16_islands import float16_islands

        model = float16_islands(model)
    if not plugin:
        return model
    from finedge.runtime.trt.plugin.node_attributes import with_node_attributes

    return with_node_attributes(model)


def attentions(model: onnx.ModelProto) -> tuple[AttentionNode, ...]:
    """Return the cross-layer attention nodes of a bundle's model, sizes by shape inference.

    Raises:
        BundleError: a size is not known.
    """
    import onnx

    nodes = attention_nodes(onnx.shape_inference.infer_shapes(model))
    for node in nodes:
        if not (node.queries and node.keys and node.d and node.dv):
            raise BundleError(
                f"the size of an input of attention node {node.name} is not known",
                expected="[B, C, H, W] with known C, H and W",
                fix="export again",
            )
    return nodes


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make one node of each attention: the registered plugin becomes its only meaning."""
    folded = fold(model, CROSS_LAYER_ATTENTION)
    if not any(map(is_attention, folded.graph.node)):
        raise BundleError(
            f"the model has no {CROSS_LAYER_ATTENTION.name} node for the plugin",
            fix="--attention decomposed",
        )
    return folded


def _show_taps(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    from finedge.graph.edit import copied
    from finedge.graph.taps import tensors, with_taps

    present = [t for t in taps if t.tensor in tensors(model)]
    lost = [t.name for t in taps if t not in present]
    if lost:
        log.warning("these taps are not in the file and are left out: %s", ", ".join(lost))
    return with_taps(copied(model), present)
