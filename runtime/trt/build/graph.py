"""The graph TensorRT is given.

We choose who computes attention, not the parser: whether a function or a plugin wins there depends on its version,
and its function importer binds by name alone (`tests/export/test_miscompiles.py` shows it on the real one).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finedge.errors import BundleError
from finedge.graph.folding import fold
from finedge.graph.onnx_file import read_model
from finedge.graph.tags import without_metadata
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN
from finedge.runtime.trt.build.options import BuildOptions

if TYPE_CHECKING:
    import onnx

    from finedge.bundle import Tap

log = logging.getLogger(__name__)

OURS = (DOMAIN, CROSS_LAYER_ATTENTION.name)


@dataclass(frozen=True)
class Attention:
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
        from finedge.graph.float16_islands import fp16_islands

        model = fp16_islands(model)
    if not plugin:
        return model
    from finedge.runtime.trt.plugin.node_attributes import with_node_attributes

    return with_node_attributes(model)


def attentions(path: Path) -> tuple[Attention, ...]:
    """Return the cross-layer attention nodes of a bundle's ONNX file, sizes by shape inference.

    Raises:
        BundleError: a size is not known.
    """
    import onnx

    model = read_model(path)
    shapes = shapes_of(onnx.shape_inference.infer_shapes(model))
    return tuple(_attention(node, shapes) for node in _nodes(fold(model, CROSS_LAYER_ATTENTION)))


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each tensor that has one; None is a dimension known only at run time (the batch)."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    known = {
        v.name: v.type.tensor_type.shape.dim for v in values if v.type.tensor_type.HasField("shape")
    }
    return {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        for name, dims in known.items()
    }


def _attention(node: onnx.NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> Attention:
    q, k, v = (_map(node, name, shapes) for name in node.input)
    return Attention(
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


def _folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Make one node of each attention: the registered plugin becomes its only meaning."""
    folded = fold(model, CROSS_LAYER_ATTENTION)
    if not _nodes(folded):
        raise BundleError(
            f"{path} has no {CROSS_LAYER_ATTENTION.name} node for the plugin",
            fix="--attention decomposed",
        )
    return folded


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if (node.domain, node.op_type) == OURS]


def _show_taps(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    from finedge.graph.taps import tensors, with_taps

    present = [t for t in taps if t.tensor in tensors(model)]
    lost = [t.name for t in taps if t not in present]
    if lost:
        log.warning("these taps are not in the file and are left out: %s", ", ".join(lost))
    return with_taps(model, present)
