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
from finedge.ops import CROSS_LAYER_ATTENTION, DOMAIN
from finedge.runtime.engine.options import BuildOptions

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

    Order: taps as outputs (with `debug_taps`), functions inlined (in plugin mode all but ours), float16 islands (precision int8), and in
    plugin mode our function deleted, so that every pass before could still look into it, and what only the plugin needs written into its nodes.

    Raises:
        BundleError: plugin mode finds no attention node in it.
    """
    import onnx

    model = onnx.load(path)
    if options.debug_taps:
        model = _show_taps(model, taps)
    plugin = options.attention == "plugin"
    model = _inline(model, keep_ours=plugin)
    if options.precision == "int8":
        from finedge.runtime.engine.islands import fp16_islands

        model = fp16_islands(model)
    if not plugin:
        return model
    from finedge.runtime.plugins.node_attributes import with_node_attributes

    return with_node_attributes(_strip(model, path))


def attentions(path: Path) -> tuple[Attention, ...]:
    """Return the cross-layer attention nodes of a bundle's ONNX file, sizes by shape inference.

    Raises:
        BundleError: a size is not known.
    """
    import onnx

    model = onnx.load(path)
    shapes = shapes_of(onnx.shape_inference.infer_shapes(model))
    return tuple(_attention(node, shapes) for node in model.graph.node if (node.domain, node.op_type) == OURS)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each tensor that has one; None is a dimension known only at run time (the batch)."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    known = {v.name: v.type.tensor_type.shape.dim for v in values if v.type.tensor_type.HasField("shape")}
    return {name: tuple(d.dim_value if d.HasField("dim_value") else None for d in dims) for name, dims in known.items()}


def _attention(node: onnx.NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> Attention:
    q, k, v = (_map(node, name, shapes) for name in node.input)
    return Attention(node.name, q[1] * q[2], k[1] * k[2], q[0], v[0], node.input[1] == node.input[2])


def _map(node: onnx.NodeProto, name: str, shapes: dict[str, tuple[int | None, ...]]) -> tuple[int, int, int]:
    """Return channels, height and width of an input."""
    shape = shapes.get(name, ())
    sizes = tuple(n for n in shape[1:] if n)
    if len(shape) != 4 or len(sizes) != 3:
        raise BundleError(f"the size of {name}, an input of node {node.name}, is not known: {list(shape)}", expected="[B, C, H, W]", fix="export again")
    return sizes[0], sizes[1], sizes[2]


def _inline(model: onnx.ModelProto, *, keep_ours: bool) -> onnx.ModelProto:
    from onnx import inliner

    if not model.functions:
        return model
    for function in model.functions:  # their own names (n14) would tell a reader of the layer report nothing
        for i, node in enumerate(function.node):
            node.name = f"{function.name}/{node.op_type}.{i}"
    if keep_ours:
        return inliner.inline_selected_functions(model, [OURS], exclude=True)
    return inliner.inline_local_functions(model)


def _strip(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Delete our function: the registered plugin becomes the only meaning of its nodes."""
    if not any((node.domain, node.op_type) == OURS for node in model.graph.node):
        raise BundleError(f"{path} has no {CROSS_LAYER_ATTENTION.name} node for the plugin", fix="--attention decomposed")
    kept = [f for f in model.functions if (f.domain, f.name) != OURS]
    del model.functions[:]
    model.functions.extend(kept)
    return model


def _show_taps(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    from finedge.runtime.taps import tensors, with_taps

    present = [t for t in taps if t.tensor in tensors(model)]
    lost = [t.name for t in taps if t not in present]
    if lost:
        log.warning("these taps are not in the file and are left out: %s", ", ".join(lost))
    return with_taps(model, present)
