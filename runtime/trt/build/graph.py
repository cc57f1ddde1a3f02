"""The graph that TensorRT parses.

This module decides how attention is computed, not the parser. Whether a function or a plugin wins
in the parser depends on its version, and its function importer binds by name alone
(`tests/export/test_miscompiles.py` shows it on the real one).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.folding import fold
from finedge.graph.tags import without_metadata
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN
from finedge.runtime.trt.build.options import BuildOptions

if TYPE_CHECKING:
    import onnx

    from finedge.bundle import Tap

log = logging.getLogger(__name__)

ATTENTION = (DOMAIN, CROSS_LAYER_ATTENTION.name)


@dataclass(frozen=True)
class AttentionNode:
    """One cross-layer attention node.

    Attributes:
        name: the node's name.
        queries: positions of the query map.
        keys: positions of the key map.
        d: channels of a query and a key: the head size.
        dv: channels of a value.
        shared: whether keys and values are one tensor.
    """

    name: str
    queries: int
    keys: int
    d: int
    dv: int
    shared: bool


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
        from finedge.graph.float16_islands import fp16_islands

        model = fp16_islands(model)
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

    shapes = shapes_of(onnx.shape_inference.infer_shapes(model))
    return tuple(_attention(node, shapes) for node in _nodes(fold(model, CROSS_LAYER_ATTENTION)))


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each tensor that has one.

    None is a dimension that is known only at run time (the batch).
    """
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    known = {
        v.name: v.type.tensor_type.shape.dim for v in values if v.type.tensor_type.HasField("shape")
    }
    return {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        for name, dims in known.items()
    }


def _attention(node: onnx.NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> AttentionNode:
    q, k, v = (_map(node, name, shapes) for name in node.input)
    return AttentionNode(
        node.name, q[1] * q[2], k[1] * k[2], q[0], v[0], node.input[1] == node.input[2]
    )


def _map(
    node: onnx.NodeProto, name: str, shapes: dict[str, tuple[int | None, ...]]
) -> tuple[int, int, int]:
    """Return channels, height and width of an input."""
    shape = shapes.get(name, ())
    sizes = tuple(n for n in shape[1:] if n)
    if len(shape) != 4 or len(sizes) != 3:
        raise BundleError(
            f"the size of {name}, an input of node {node.name}, is not known: {list(shape)}",
            expected="[B, C, H, W]",
            fix="export again",
        )
    return sizes[0], sizes[1], sizes[2]


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make one node of each attention: the registered plugin becomes its only meaning."""
    folded = fold(model, CROSS_LAYER_ATTENTION)
    if not _nodes(folded):
        raise BundleError(
            f"the model has no {CROSS_LAYER_ATTENTION.name} node for the plugin",
            fix="--attention decomposed",
        )
    return folded


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if (node.domain, node.op_type) == ATTENTION]


def _show_taps(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    from finedge.graph.tags import copied
    from finedge.graph.taps import tensors, with_taps

    present = [t for t in taps if t.tensor in tensors(model)]
    lost = [t.name for t in taps if t not in present]
    if lost:
        log.warning("these taps are not in the file and are left out: %s", ", ".join(lost))
    return with_taps(copied(model), present)
